//! STUB by the lead; fr replaces this file.
