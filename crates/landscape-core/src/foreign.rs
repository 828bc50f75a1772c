//! State dicts that other programs wrote: read, freed of their prefixes, and their names matched with ours.

use crate::checkpoint::{Checkpoint, open};
use crate::error::{Error, Result};
use crate::pth;
use crate::tensor::RawTensor;
use landscape_graph::{Graph, Role, TensorDecl};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// What wrappers of modules put before every name: `DataParallel` and `torch.compile`.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];

/// Which tensor of a file is which of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// (name in the file, name in the network), in the network's order.
    pub pairs: Vec<(String, String)>,
    /// What it was told by.
    pub how: How,
}

/// What a [`Mapping`] was told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The names are the same.
    ByName,
    /// The file keeps the order of its state dict, and all shapes line up with the network's, one by one.
    ByOrderAndShape,
    /// The file is sorted by name and keeps no order; each module is known by its shapes, and modules of equal shapes by names
    /// that differ in numbers only.
    ByNumberAndShape,
}

impl Mapping {
    /// From the network's names to the file's.
    pub fn inverse(&self) -> Mapping {
        Mapping { pairs: self.pairs.iter().map(|(theirs, ours)| (ours.clone(), theirs.clone())).collect(), how: self.how }
    }
}

/// Reads a checkpoint of ours, a safetensors file of any other origin, or a `.pth` file of `torch.save`; the content decides,
/// not the name. Prefixes that stand before every name are taken off.
///
/// # Errors
/// [`Error::Read`], or [`Error::Format`] if the file is of no such format, truncated, corrupt, or asks to run code.
pub fn read_state_dict(path: &Path) -> Result<Checkpoint> {
    let (mut file, size_bytes) = open(path)?;
    let mut start = Vec::new();
    file.by_ref().take(264).read_to_end(&mut start).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let wrong = |reason: &str| Error::Format { path: path.to_owned(), reason: reason.to_owned() };
    let mut checkpoint = if start.starts_with(b"PK\x03\x04") {
        pth::read(path)?
    } else if is_legacy(&start) {
        return Err(wrong(
            "it has the format that PyTorch wrote before version 1.6, which is not read; load it in PyTorch and save it again with \
             `torch.save(state_dict, path, _use_new_zipfile_serialization=True)`",
        ));
    } else if start.get(8) == Some(&b'{') {
        Checkpoint::read(path)?
    } else if size_bytes == 0 {
        return Err(wrong("the file is empty, expected a safetensors or `.pth` file"));
    } else {
        return Err(wrong("expected a safetensors file or a zip file of `torch.save`, found neither: truncated, or of another format"));
    };
    if checkpoint.metadata.as_ref().is_none_or(|m| m.graph.is_none()) {
        strip_prefixes(&mut checkpoint.tensors);
    }
    Ok(checkpoint)
}

/// A bare pickle (the magic number of old files is pickled first) or the tar archive of the very first versions.
fn is_legacy(start: &[u8]) -> bool {
    matches!(start, [0x80, 2..=5, ..]) || start.get(257..262) == Some(b"ustar")
}

fn strip_prefixes(tensors: &mut [(String, RawTensor)]) {
    while let Some(prefix) = PREFIXES.iter().find(|p| !tensors.is_empty() && tensors.iter().all(|(name, _)| name.starts_with(**p))) {
        for (name, _) in tensors.iter_mut() {
            name.drain(..prefix.len());
        }
    }
}

/// Finds out which tensor of a file is which of a network: by name if the names are the same, else by order and shape where that
/// leaves no choice. Counts of batches may be missing.
///
/// What leaves no choice: the file's tensors, in its order, have the shapes of the network's state dict position by position, and
/// a name that both have stands for the same tensor. A file whose tensors are sorted by name (as safetensors' own writers leave
/// them) tells no order; there each module is known by the names of its parts and their shapes, and several of the same shapes by
/// names that differ in their numbers only, in the order of these numbers.
///
/// # Errors
/// [`Error::Layout`] with the names and shapes of both sides that differ.
pub fn match_names(graph: &Graph, checkpoint: &Checkpoint) -> Result<Mapping> {
    let ours = graph.state_dict();
    let theirs: Vec<Theirs<'_>> = checkpoint.tensors.iter().map(|(name, tensor)| Theirs { name, tensor }).collect();
    let by_name = name_differences(&ours, &theirs);
    if by_name.is_empty() {
        let known = |d: &&TensorDecl| theirs.iter().any(|t| t.name == d.name);
        let pairs = ours.iter().filter(known).map(|d| (d.name.clone(), d.name.clone())).collect();
        return Ok(Mapping { pairs, how: How::ByName });
    }
    let our_values: Vec<&TensorDecl> = ours.iter().filter(|d| d.role != Role::NumBatchesTracked).collect();
    let their_values: Vec<&Theirs<'_>> = theirs.iter().filter(|t| !t.is_count()).collect();
    let (matched, how) = if is_sorted(&theirs) {
        (by_number(&our_values, &their_values), How::ByNumberAndShape)
    } else {
        (by_order(&our_values, &their_values), How::ByOrderAndShape)
    };
    let differences = match matched.and_then(|pairs| with_counts(&ours, &theirs, pairs)) {
        Ok(pairs) => return Ok(Mapping { pairs, how }),
        Err(differences) => differences,
    };
    // Where most names agree, the names tell best what is wrong.
    let n_common = our_values.iter().filter(|d| their_values.iter().any(|t| t.name == d.name)).count();
    let differences = if 2 * n_common >= our_values.len() { by_name } else { differences };
    Err(Error::Layout { left: "the checkpoint".to_owned(), right: "the network".to_owned(), differences })
}

type Pairs = Vec<(String, String)>;
type Differences = Vec<String>;

struct Theirs<'a> {
    name: &'a str,
    tensor: &'a RawTensor,
}

impl Theirs<'_> {
    fn is_count(&self) -> bool {
        suffix(self.name) == Role::NumBatchesTracked.suffix() && self.tensor.n_elements() == 1
    }

    fn describe(&self) -> String {
        format!("`{}` {:?}", self.name, self.tensor.shape())
    }
}

fn describe(ours: &TensorDecl) -> String {
    format!("`{}` {:?}", ours.name, ours.shape)
}

fn suffix(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, suffix)| suffix)
}

fn module(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(module, _)| module)
}

/// What keeps the two from being the same by name.
fn name_differences(ours: &[TensorDecl], theirs: &[Theirs<'_>]) -> Differences {
    let their_names: BTreeMap<&str, &Theirs<'_>> = theirs.iter().map(|t| (t.name, t)).collect();
    let our_names: BTreeMap<&str, &TensorDecl> = ours.iter().map(|d| (d.name.as_str(), d)).collect();
    let mut differences = Vec::new();
    for declared in ours {
        match their_names.get(declared.name.as_str()) {
            None if declared.role == Role::NumBatchesTracked => {}
            None => differences.push(format!("{} is only in the network", describe(declared))),
            Some(found) if found.tensor.shape() != declared.shape => {
                let (found, shape) = (found.tensor.shape(), &declared.shape);
                differences.push(format!("`{}` is {found:?} in the checkpoint and {shape:?} in the network", declared.name));
            }
            Some(_) => {}
        }
    }
    for extra in theirs.iter().filter(|t| !our_names.contains_key(t.name)) {
        differences.push(format!("{} is only in the checkpoint", extra.describe()));
    }
    differences
}

/// Whether the names ascend within every dtype, which is how safetensors' writers sort; a file that is meant to keep an order
/// looks so by chance only if it has hardly anything to order.
fn is_sorted(theirs: &[Theirs<'_>]) -> bool {
    let mut last = BTreeMap::new();
    theirs.iter().all(|t| last.insert(t.tensor.dtype(), t.name).is_none_or(|before| before < t.name))
}

/// Whether two tensors can be the same, as far as shape and the last part of the name tell.
fn can_be(theirs: &Theirs<'_>, ours: &TensorDecl) -> bool {
    let roles = [Role::Weight, Role::Bias, Role::RunningMean, Role::RunningVar, Role::NumBatchesTracked];
    let known = roles.iter().any(|role| role.suffix() == suffix(theirs.name));
    theirs.tensor.shape() == ours.shape && (!known || suffix(theirs.name) == ours.role.suffix())
}

fn by_order(ours: &[&TensorDecl], theirs: &[&Theirs<'_>]) -> std::result::Result<Pairs, Differences> {
    let our_names: BTreeMap<&str, usize> = ours.iter().enumerate().map(|(idx, d)| (d.name.as_str(), idx)).collect();
    let mut differences = Vec::new();
    for idx in 0..ours.len().max(theirs.len()) {
        let line = match (theirs.get(idx), ours.get(idx)) {
            (Some(t), Some(o)) if !can_be(t, o) => format!("{} in the checkpoint, {} in the network", t.describe(), describe(o)),
            (Some(t), Some(o)) if our_names.get(t.name).is_some_and(|&own| own != idx) => {
                format!("`{}` is also the name of another tensor of the network than {}", t.name, describe(o))
            }
            (Some(_), Some(_)) => continue,
            (Some(t), None) => format!("{} is only in the checkpoint", t.describe()),
            (None, Some(o)) => format!("{} is only in the network", describe(o)),
            (None, None) => continue,
        };
        differences.push(format!("position {}: {line}", idx + 1));
    }
    if differences.is_empty() {
        return Ok(theirs.iter().zip(ours).map(|(t, o)| (t.name.to_owned(), o.name.clone())).collect());
    }
    differences.insert(0, "the names differ, and the shapes do not line up in the order of the file:".to_owned());
    Err(differences)
}

/// A module's parts with their shapes.
type Signature<'a> = BTreeMap<&'a str, &'a [usize]>;

fn by_number(ours: &[&TensorDecl], theirs: &[&Theirs<'_>]) -> std::result::Result<Pairs, Differences> {
    let our_modules = modules(ours.iter().map(|d| (d.name.as_str(), d.shape.as_slice())));
    let their_modules = modules(theirs.iter().map(|t| (t.name, t.tensor.shape())));
    let mut groups: BTreeMap<&Signature<'_>, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    for (name, signature) in &their_modules {
        groups.entry(signature).or_default().0.push(name);
    }
    for (name, signature) in &our_modules {
        groups.entry(signature).or_default().1.push(name);
    }
    let (mut renamed, mut differences) = (BTreeMap::new(), Vec::new());
    for (signature, (mut their_names, our_names)) in groups {
        let shapes: Vec<String> = signature.iter().map(|(part, shape)| format!("{part} {shape:?}")).collect();
        let pattern = |name: &str| numbers(name).0;
        let alike = their_names.iter().all(|name| pattern(name) == pattern(their_names[0]));
        if their_names.len() != our_names.len() || !alike {
            let names = |names: &[&str]| if names.is_empty() { "none".to_owned() } else { format!("`{}`", names.join("`, `")) };
            let (theirs, ours) = (names(&their_names), names(&our_names));
            differences.push(format!("modules with {}: {theirs} in the checkpoint, {ours} in the network", shapes.join(", ")));
            continue;
        }
        their_names.sort_by_key(|name| numbers(name).1);
        renamed.extend(our_names.into_iter().zip(their_names));
    }
    if !differences.is_empty() {
        differences.insert(0, "the names differ, the file is sorted by name and tells no order, and the shapes leave a choice:".to_owned());
        return Err(differences);
    }
    let their_name = |d: &TensorDecl| {
        let module = renamed[module(&d.name)];
        if module.is_empty() { suffix(&d.name).to_owned() } else { format!("{module}.{}", suffix(&d.name)) }
    };
    let pairs: Pairs = ours.iter().map(|d| (their_name(d), d.name.clone())).collect();
    let clashes: Differences = pairs
        .iter()
        .filter(|(theirs, own)| theirs != own && ours.iter().any(|d| d.name == *theirs))
        .map(|(theirs, own)| format!("`{theirs}` would stand for `{own}`, and the network has a `{theirs}` of its own"))
        .collect();
    if clashes.is_empty() { Ok(pairs) } else { Err(clashes) }
}

/// Modules in order of appearance.
fn modules<'a>(tensors: impl Iterator<Item = (&'a str, &'a [usize])>) -> Vec<(&'a str, Signature<'a>)> {
    let mut modules: Vec<(&str, Signature<'_>)> = Vec::new();
    let mut places = BTreeMap::new();
    for (name, shape) in tensors {
        let place = *places.entry(module(name)).or_insert(modules.len());
        if place == modules.len() {
            modules.push((module(name), Signature::new()));
        }
        modules[place].1.insert(suffix(name), shape);
    }
    modules
}

/// A name with its numbers taken out, and the numbers: as text without leading zeros, compared by length first.
fn numbers(name: &str) -> (String, Vec<(usize, &str)>) {
    let (mut pattern, mut numbers, mut rest) = (String::new(), Vec::new(), name);
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let end = rest[start..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |n| start + n);
        pattern.push_str(&rest[..start]);
        pattern.push('#');
        let number = rest[start..end].trim_start_matches('0');
        numbers.push((number.len(), number));
        rest = &rest[end..];
    }
    pattern.push_str(rest);
    (pattern, numbers)
}

/// Adds the counts of batches, which go where the variances of their module go.
fn with_counts(ours: &[TensorDecl], theirs: &[Theirs<'_>], pairs: Pairs) -> std::result::Result<Pairs, Differences> {
    let by_our_name: BTreeMap<String, String> = pairs.into_iter().map(|(theirs, ours)| (ours, theirs)).collect();
    let of_module = |name: &str, role: Role| format!("{}.{}", module(name), role.suffix());
    let mut counts: BTreeMap<&str, &Theirs<'_>> = theirs.iter().filter(|t| t.is_count()).map(|t| (t.name, t)).collect();
    let mut all = Vec::new();
    for declared in ours {
        let theirs = if declared.role == Role::NumBatchesTracked {
            let variance = &by_our_name[&of_module(&declared.name, Role::RunningVar)];
            let count = of_module(variance, Role::NumBatchesTracked);
            counts.remove(count.as_str()).map(|_| count)
        } else {
            Some(by_our_name[&declared.name].clone())
        };
        all.extend(theirs.map(|theirs| (theirs, declared.name.clone())));
    }
    if counts.is_empty() { Ok(all) } else { Err(counts.values().map(|t| format!("{} belongs to no batch norm of the network", t.describe())).collect()) }
}
