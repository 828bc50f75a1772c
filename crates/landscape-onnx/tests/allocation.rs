//! A file must not make this program take much more memory than the file itself: every byte that is asked for counts here.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls go to the system's allocator; only sizes are counted beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What importing takes at most.
fn peak(bytes: Vec<u8>) -> usize {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let _ = landscape_onnx::import_bytes(bytes);
    PEAK.load(Ordering::Relaxed) - before
}

/// Field `number` of wire type 2.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut n = content.len();
    while n >= 128 {
        bytes.push((n & 127) as u8 | 128);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes.extend_from_slice(content);
    bytes
}

#[test]
fn memory_is_bounded_by_the_size_of_the_file() {
    // The worst that the encoding allows: as many empty messages as there are pairs of bytes.
    for number in [1, 5, 11, 12, 13] {
        let file = field(7, &field(number, b"").repeat(100_000));
        let n_bytes = file.len();
        let peak = peak(file);
        assert!(peak <= 512 * n_bytes, "{number}: {peak} bytes of {n_bytes}");
    }
    // Nested in a node: empty attributes.
    let file = field(7, &field(1, &field(5, b"").repeat(100_000)));
    let n_bytes = file.len();
    assert!(peak(file) <= 512 * n_bytes);
    // Ordinary files, with what is computed ahead of time.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/");
    for name in ["mlp.onnx", "convnet.onnx", "transformer.onnx", "mixed.onnx"] {
        let file = std::fs::read(format!("{folder}{name}")).unwrap();
        let n_bytes = file.len();
        let peak = peak(file);
        assert!(peak <= 64 * n_bytes + (1 << 16), "{name}: {peak} bytes of {n_bytes}");
    }
}
