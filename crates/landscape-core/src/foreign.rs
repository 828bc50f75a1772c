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
    strip_foreign_prefixes(&mut checkpoint);
    Ok(checkpoint)
}

/// [`read_state_dict`] of a safetensors file whose tensors stay on disk; see [`Checkpoint::map`] for what that asks of the file.
///
/// # Errors
/// As [`Checkpoint::map`]; a `.pth` file is a [`Error::Format`], its tensors cannot be read where they are.
pub fn map_state_dict(path: &Path) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::map(path)?;
    strip_foreign_prefixes(&mut checkpoint);
    Ok(checkpoint)
}

fn strip_foreign_prefixes(checkpoint: &mut Checkpoint) {
    if checkpoint.metadata.as_ref().is_none_or(|m| m.graph.is_none()) {
        strip_prefixes(&mut checkpoint.tensors);
    }
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
        Some(suffix(self.name)) == Role::NumBatchesTracked.suffix() && self.tensor.n_elements() == 1
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
    let known = roles.iter().any(|role| role.suffix() == Some(suffix(theirs.name)));
    theirs.tensor.shape() == ours.shape && (!known || suffix(theirs.name) == suffix(&ours.name))
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
    let of_module = |name: &str, suffix: &str| format!("{}.{suffix}", module(name));
    let mut counts: BTreeMap<&str, &Theirs<'_>> = theirs.iter().filter(|t| t.is_count()).map(|t| (t.name, t)).collect();
    let mut all = Vec::new();
    for declared in ours {
        let theirs = if declared.role == Role::NumBatchesTracked {
            let variance = &by_our_name[&of_module(&declared.name, "running_var")];
            let count = of_module(variance, "num_batches_tracked");
            counts.remove(count.as_str()).map(|_| count)
        } else {
            Some(by_our_name[&declared.name].clone())
        };
        all.extend(theirs.map(|theirs| (theirs, declared.name.clone())));
    }
    if counts.is_empty() {
        Ok(all)
    } else {
        Err(counts.values().map(|t| format!("{} belongs to no batch norm of the network", t.describe())).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tensor::Dtype;
    use landscape_graph::{Bias, Conv2d, GraphBuilder};

    fn mlp(widths: &[usize]) -> Graph {
        let mut b = GraphBuilder::new([widths[0]]);
        let mut x = b.input();
        for (i, &width) in widths[1..].iter().enumerate() {
            x = b.linear(&format!("fc{}", i + 1), x, width, Bias::On).unwrap();
            x = b.relu(&format!("relu{}", i + 1), x).unwrap();
        }
        b.finish(x).unwrap()
    }

    fn with_norm() -> Graph {
        let mut b = GraphBuilder::new([1, 4, 4]);
        let mut x = b.input();
        for i in [1, 2] {
            x = b.conv2d(&format!("conv{i}"), x, Conv2d { bias: Bias::Off, ..Conv2d::new(2, 1) }).unwrap();
            x = b.batch_norm(&format!("bn{i}"), x).unwrap();
        }
        b.finish(x).unwrap()
    }

    /// The graph's own tensors under new names.
    fn file(graph: &Graph, rename: impl Fn(&str) -> Option<String>) -> Checkpoint {
        let tensors = graph.state_dict().into_iter().filter_map(|d| {
            let dtype = if d.role == Role::NumBatchesTracked { Dtype::I64 } else { Dtype::F32 };
            let zeros = vec![0.0; d.n_elements()];
            Some((rename(&d.name)?, RawTensor::from_f64(dtype, d.shape, &zeros).unwrap()))
        });
        Checkpoint { tensors: tensors.collect(), metadata: None }
    }

    /// As safetensors' writers leave it.
    fn sorted(mut checkpoint: Checkpoint) -> Checkpoint {
        checkpoint.tensors.sort_by(|(a, x), (b, y)| x.dtype().cmp(&y.dtype()).then(a.cmp(b)));
        checkpoint
    }

    fn replace(from: &'static str, to: &'static str) -> impl Fn(&str) -> Option<String> {
        move |name| Some(name.replace(from, to))
    }

    fn refused(graph: &Graph, checkpoint: &Checkpoint, parts: &[&str]) {
        let error = match_names(graph, checkpoint).unwrap_err();
        assert!(matches!(error, Error::Layout { .. }), "{error}");
        for part in parts {
            assert!(error.to_string().contains(part), "expected `{part}` in: {error}");
        }
    }

    #[test]
    fn same_names_match_in_any_order() {
        for graph in [mlp(&[4, 5, 3]), with_norm()] {
            let mut checkpoint = file(&graph, |name| Some(name.to_owned()));
            checkpoint.tensors.reverse();
            let mapping = match_names(&graph, &checkpoint).unwrap();
            assert_eq!(mapping.how, How::ByName);
            assert!(mapping.pairs.iter().all(|(theirs, ours)| theirs == ours));
            let names: Vec<String> = graph.state_dict().into_iter().map(|d| d.name).collect();
            assert_eq!(mapping.pairs.iter().map(|(_, ours)| ours.clone()).collect::<Vec<_>>(), names);
            let renamed = checkpoint.renamed(&mapping).unwrap();
            assert_eq!(renamed.tensors.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
        }
    }

    #[test]
    fn counts_may_be_missing() {
        let graph = with_norm();
        let no_counts = |name: &str| (!name.ends_with("tracked")).then(|| name.to_owned());
        assert_eq!(match_names(&graph, &file(&graph, no_counts)).unwrap().how, How::ByName);
        let other = |name: &str| no_counts(name).map(|n| n.replace("conv", "c"));
        let mapping = match_names(&graph, &file(&graph, other)).unwrap();
        assert_eq!((mapping.how, mapping.pairs.len()), (How::ByOrderAndShape, 10));
        let one = |name: &str| (name != "bn1.num_batches_tracked").then(|| name.replace("bn", "norm"));
        let mapping = match_names(&graph, &file(&graph, one)).unwrap();
        let pair = ("norm2.num_batches_tracked".to_owned(), "bn2.num_batches_tracked".to_owned());
        assert!(mapping.pairs.contains(&pair) && mapping.pairs.len() == 11);
        assert_eq!(mapping.inverse().pairs[0], (mapping.pairs[0].1.clone(), mapping.pairs[0].0.clone()));
    }

    #[test]
    fn other_names_match_by_order_and_shape() {
        for (graph, from, to) in [(mlp(&[4, 4, 4, 4]), "fc", "net.layer"), (with_norm(), "bn", "norm")] {
            let mapping = match_names(&graph, &file(&graph, replace(from, to))).unwrap();
            assert_eq!(mapping.how, How::ByOrderAndShape);
            assert!(mapping.pairs.iter().all(|(theirs, ours)| *theirs == ours.replace(from, to)), "{mapping:?}");
        }
    }

    #[test]
    fn what_leaves_a_choice_is_refused_with_the_list() {
        let graph = mlp(&[4, 4, 3]);
        let mut swapped = file(&graph, replace("fc", "layer"));
        swapped.tensors.swap(0, 2);
        refused(
            &graph,
            &swapped,
            &["do not line up", "position 1: `layer2.weight` [3, 4] in the checkpoint, `fc1.weight` [4, 4] in the network"],
        );
        // The same shapes, but a bias where a running mean is expected.
        let norm = with_norm();
        let mut mean_first = file(&norm, replace("bn", "norm"));
        mean_first.tensors.swap(2, 3);
        refused(&norm, &mean_first, &["`norm1.running_mean` [2] in the checkpoint, `bn1.bias` [2] in the network"]);
        // A name that both have must stand for the same tensor.
        let square = mlp(&[4, 4, 4, 4]);
        let crossed = file(&square, |name| {
            Some(if name.starts_with("fc1") { name.replace("fc1", "fc2") } else { name.replace("fc2", "x").replace("fc3", "y") })
        });
        refused(&square, &crossed, &["`fc2.weight` is also the name of another tensor"]);
        // Missing, extra and reshaped tensors, by name where most names agree.
        let mut other = file(&graph, |name| Some(name.to_owned()));
        let tensor = RawTensor::from_f64(Dtype::F32, vec![7], &[0.0; 7]).unwrap();
        other.tensors[3] = ("fc2.bias".to_owned(), tensor.clone());
        other.tensors.push(("mask".to_owned(), tensor));
        refused(&graph, &other, &["`fc2.bias` is [7] in the checkpoint and [3] in the network", "`mask` [7] is only in the checkpoint"]);
        other.tensors.drain(2..);
        refused(&graph, &other, &["`fc2.weight` [3, 4] is only in the network", "`fc2.bias` [3] is only in the network"]);
        refused(
            &graph,
            &Checkpoint { tensors: Vec::new(), metadata: None },
            &["modules with bias [4], weight [4, 4]: none in the checkpoint, `fc1` in"],
        );
    }

    #[test]
    fn sorted_files_match_by_numbers() {
        // Twelve layers of one shape: sorted by name, 10 comes before 2.
        let deep = mlp(&[4; 13]);
        let mapping = match_names(&deep, &sorted(file(&deep, replace("fc", "layers.")))).unwrap();
        assert_eq!(mapping.how, How::ByNumberAndShape);
        assert!(mapping.pairs.iter().all(|(theirs, ours)| *theirs == ours.replace("fc", "layers.")), "{mapping:?}");
        let norm = with_norm();
        let mapping = match_names(&norm, &sorted(file(&norm, |name| Some(format!("net.{name}"))))).unwrap();
        assert!(mapping.pairs.iter().all(|(theirs, ours)| *theirs == format!("net.{ours}")), "{mapping:?}");
        assert_eq!(mapping.pairs.len(), 12);
        // Modules of different shapes need no numbers.
        let names = |name: &str| Some(name.replace("fc1", "zeta").replace("fc2", "alpha"));
        let graph = mlp(&[4, 5, 3]);
        let mapping = match_names(&graph, &sorted(file(&graph, names))).unwrap();
        assert_eq!(mapping.pairs[0], ("zeta.weight".to_owned(), "fc1.weight".to_owned()));
        // Modules of equal shapes with names that do not count are a choice.
        let square = mlp(&[4, 4, 4]);
        refused(
            &square,
            &sorted(file(&square, names)),
            &["tells no order", "`alpha`, `zeta` in the checkpoint, `fc1`, `fc2` in the network"],
        );
        // So are names of ours in another place.
        let shifted = |name: &str| Some(name.replace("fc2", "fc3").replace("fc1", "fc2"));
        refused(&square, &sorted(file(&square, shifted)), &[]);
    }

    #[test]
    fn prefixes_are_stripped_where_all_have_them() {
        let tensor = RawTensor::from_f64(Dtype::F32, vec![1], &[0.0]).unwrap();
        let strip = |names: &[&str]| {
            let mut tensors: Vec<_> = names.iter().map(|n| ((*n).to_owned(), tensor.clone())).collect();
            strip_prefixes(&mut tensors);
            tensors.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(strip(&["module.a.weight", "module.b"]), ["a.weight", "b"]);
        assert_eq!(strip(&["_orig_mod.module.a", "_orig_mod.module.b"]), ["a", "b"]);
        assert_eq!(strip(&["module._orig_mod.module.a"]), ["a"]);
        assert_eq!(strip(&["module.a", "b"]), ["module.a", "b"]);
        assert_eq!(strip(&["modules.a"]), ["modules.a"]);
        assert!(strip(&[]).is_empty());
    }
}
