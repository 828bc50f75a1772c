//! Files that were changed at random: every reader gives a value or an error, never a panic, and asks for no more memory than the
//! file's size explains.
#![allow(clippy::unwrap_used)]

use landscape_core::checkpoint::{Checkpoint, Metadata};
use landscape_core::tensor::{Dtype, RawTensor};
use landscape_core::{Error, foreign, pth, record};
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Cursor, Read, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;

/// Notes the largest single request of each thread.
struct Watched;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    // The allocator also runs while a thread ends, when its locals are gone.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: `place` came from the system's allocator with this layout.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: `place` came from the system's allocator with this layout.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Runs a reader; its largest allocation must be explained by what it was given.
fn watched<T>(n_bytes: usize, read: impl FnOnce() -> T) -> T {
    LARGEST.set(0);
    let value = read();
    let (largest, most) = (LARGEST.get(), 64 * n_bytes + (256 << 10));
    assert!(largest <= most, "one allocation of {largest} bytes for a file of {n_bytes}");
    value
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

/// One change to a file.
#[derive(Debug, Clone)]
enum Mutation {
    FlipBit {
        at: f64,
        bit: u8,
    },
    Set {
        at: f64,
        value: u8,
    },
    Truncate {
        at: f64,
    },
    /// Copies one part over another.
    Splice {
        from: f64,
        to: f64,
        len: usize,
    },
    Insert {
        at: f64,
        bytes: Vec<u8>,
    },
    Remove {
        at: f64,
        len: usize,
    },
    /// Overwrites 2, 4 or 8 bytes with a length that is large, small, or just wrong.
    Length {
        at: f64,
        width: usize,
        value: u64,
    },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = || 0.0..1.0f64;
    let lengths = prop_oneof![
        Just(0),
        Just(1),
        Just(0x7fff_ffff),
        Just(0xffff_ffff),
        Just(u64::MAX),
        Just(u64::MAX / 2),
        Just(1 << 40),
        any::<u64>(),
        0..5000u64,
    ];
    prop_oneof![
        (at(), 0..8u8).prop_map(|(at, bit)| Mutation::FlipBit { at, bit }),
        (at(), any::<u8>()).prop_map(|(at, value)| Mutation::Set { at, value }),
        at().prop_map(|at| Mutation::Truncate { at }),
        (at(), at(), 1..64usize).prop_map(|(from, to, len)| Mutation::Splice { from, to, len }),
        (at(), prop::collection::vec(any::<u8>(), 1..16)).prop_map(|(at, bytes)| Mutation::Insert { at, bytes }),
        (at(), 1..32usize).prop_map(|(at, len)| Mutation::Remove { at, len }),
        (at(), prop_oneof![Just(2), Just(4), Just(8usize)], lengths).prop_map(|(at, width, value)| Mutation::Length { at, width, value }),
    ]
}

fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        let n = bytes.len();
        if n == 0 {
            break;
        }
        let place = |share: f64| ((share * n as f64) as usize).min(n - 1);
        match mutation {
            Mutation::FlipBit { at, bit } => bytes[place(*at)] ^= 1 << bit,
            Mutation::Set { at, value } => bytes[place(*at)] = *value,
            Mutation::Truncate { at } => bytes.truncate(place(*at)),
            Mutation::Splice { from, to, len } => {
                let (from, to) = (place(*from), place(*to));
                let len = (*len).min(n - from.max(to));
                bytes.copy_within(from..from + len, to);
            }
            Mutation::Insert { at, bytes: more } => {
                let at = place(*at);
                bytes.splice(at..at, more.iter().copied());
            }
            Mutation::Remove { at, len } => {
                let at = place(*at);
                bytes.drain(at..(at + len).min(n));
            }
            Mutation::Length { at, width, value } => {
                let at = place(*at);
                let width = (*width).min(n - at);
                bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            }
        }
    }
    bytes
}

fn safetensors_file() -> Vec<u8> {
    let mut b = landscape_graph::GraphBuilder::new([2]);
    let x = b.linear("fc", b.input(), 3, landscape_graph::Bias::On).unwrap();
    let graph = b.finish(x).unwrap();
    let tensors = [("fc.weight", Dtype::F32, vec![3, 2]), ("fc.bias", Dtype::F16, vec![3]), ("count", Dtype::I64, vec![])];
    let tensors = tensors.map(|(name, dtype, shape): (_, _, Vec<usize>)| {
        let values = vec![1.0; shape.iter().product()];
        (name.to_owned(), RawTensor::from_f64(dtype, shape, &values).unwrap())
    });
    let metadata = Metadata { graph: Some(graph), seed: Some(1), ..Metadata::default() };
    Checkpoint { tensors: tensors.to_vec(), metadata: Some(metadata) }.to_bytes().unwrap()
}

/// Errors name the file.
fn check_named(result: Result<Checkpoint, Error>) -> Result<(), TestCaseError> {
    match result {
        Ok(checkpoint) => {
            for (_, tensor) in &checkpoint.tensors {
                prop_assert_eq!(Some(tensor.bytes().len()), tensor.dtype().tensor_bytes(tensor.shape()));
            }
            let _ = checkpoint.check_finite();
        }
        Err(error) => prop_assert!(error.to_string().contains("mutated.file"), "{}", error),
    }
    Ok(())
}

/// A zip archive of `torch.save`'s form around any pickle, with sound checksums, so that what is in the pickle counts.
fn archive(pickle: &[u8], storages: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", options).unwrap();
    zip.write_all(pickle).unwrap();
    for (key, bytes) in storages {
        zip.start_file(format!("archive/data/{key}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The pickle and the storages of a fixture.
fn parts(name: &str) -> (Vec<u8>, Vec<(String, Vec<u8>)>) {
    let mut zip = zip::ZipArchive::new(Cursor::new(fixture(name))).unwrap();
    let (mut pickle, mut storages) = (Vec::new(), Vec::new());
    for idx in 0..zip.len() {
        let mut entry = zip.by_index(idx).unwrap();
        let name = entry.name().unwrap().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        match name.split_once('/').unwrap().1 {
            "data.pkl" => pickle = bytes,
            rest => storages.extend(rest.strip_prefix("data/").map(|key| (key.to_owned(), bytes))),
        }
    }
    (pickle, storages)
}

const PTH: [&str; 6] = ["plain.pth", "strided.pth", "integers.pth", "wrapped_model.pth", "deflated.pth", "evil4.pth"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn safetensors_files(mutations in prop::collection::vec(mutation(), 1..4)) {
        let bytes = mutate(safetensors_file(), &mutations);
        check_named(watched(bytes.len(), || Checkpoint::from_bytes(&bytes, Path::new("mutated.file"))))?;
    }

    #[test]
    fn pth_files(which in 0..PTH.len(), mutations in prop::collection::vec(mutation(), 1..4)) {
        let bytes = mutate(fixture(PTH[which]), &mutations);
        check_named(watched(bytes.len(), || pth::from_bytes(&bytes, Path::new("mutated.file"))))?;
    }

    #[test]
    fn pickles_in_sound_archives(which in 0..4usize, mutations in prop::collection::vec(mutation(), 1..4)) {
        let (pickle, storages) = parts(PTH[which]);
        let bytes = archive(&mutate(pickle, &mutations), &storages);
        check_named(watched(bytes.len(), || pth::from_bytes(&bytes, Path::new("mutated.file"))))?;
    }

    #[test]
    fn pickles_of_any_bytes(pickle in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = archive(&pickle, &[]);
        check_named(watched(bytes.len(), || pth::from_bytes(&bytes, Path::new("mutated.file"))))?;
    }

    #[test]
    fn any_file_by_its_content(which in 0..PTH.len() + 1, mutations in prop::collection::vec(mutation(), 0..3)) {
        let whole = PTH.get(which).map_or_else(safetensors_file, |name| fixture(name));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mutated.file");
        let bytes = mutate(whole, &mutations);
        std::fs::write(&path, &bytes).unwrap();
        check_named(watched(bytes.len(), || foreign::read_state_dict(&path)))?;
    }

    #[test]
    fn records(mutations in prop::collection::vec(mutation(), 1..4)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mutated.file");
        std::fs::write(&path, mutate(b"{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":[1e-3]}\n".to_vec(), &mutations)).unwrap();
        if let Err(error) = record::read_records(&path) {
            prop_assert!(error.to_string().contains("mutated.file") && error.to_string().contains("line"), "{}", error);
        }
    }

    #[test]
    fn metadata(mutations in prop::collection::vec(mutation(), 1..4)) {
        let text = br#"{"format_version":1,"metrics":{"nll":0.5},"normalization":{"mean":[0.5],"std":[0.2]},"point":{"curve":"bezier","n_points":3,"t":0.5}}"#;
        let text = mutate(text.to_vec(), &mutations);
        let _ = Metadata::from_json(&String::from_utf8_lossy(&text));
    }
}

#[test]
fn every_truncation_is_an_error() {
    for whole in PTH.iter().map(|name| fixture(name)).chain([safetensors_file()]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mutated.file");
        for len in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
            std::fs::write(&path, &whole[..len]).unwrap();
            let error = foreign::read_state_dict(&path).unwrap_err();
            assert!(error.to_string().contains("mutated.file"), "{len}: {error}");
        }
    }
}

#[test]
fn corrupt_numbers_in_a_pth_file_are_noticed() {
    let whole = fixture("plain.pth");
    let expected = pth::from_bytes(&whole, Path::new("plain.pth")).unwrap();
    let weight = expected.get("0.weight").unwrap().bytes();
    let at = whole.windows(weight.len()).position(|w| w == weight).unwrap();
    let mut corrupt = whole;
    corrupt[at + 5] ^= 1;
    let message = pth::from_bytes(&corrupt, Path::new("plain.pth")).unwrap_err().to_string();
    assert!(message.contains("`plain.pth`: tensor `0.weight`"), "{message}");
}

/// A state dict of one tensor by hand: `{"w": rebuild((storage), offset, shape, strides)}`, with `class` for the storage.
fn one_tensor(class: &str, n_elements: &[u8], offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let mut p = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\n".to_vec();
    p.extend(class.as_bytes());
    p.extend(b"\nX\x01\0\0\x000X\x03\0\0\0cpu");
    p.extend(n_elements);
    p.extend(b"tQ");
    p.extend(offset);
    p.extend(b"(");
    p.extend(shape);
    p.extend(b"t(");
    p.extend(strides);
    p.extend(b"t\x89}tRs.");
    p
}

#[test]
fn pickles_that_lie_about_sizes_are_refused() {
    let storage = [("0".to_owned(), vec![0u8; 16])];
    let read = |pickle: &[u8]| watched(4096, || pth::from_bytes(&archive(pickle, &storage), Path::new("lies.pth")));
    let sound = read(&one_tensor("FloatStorage", b"K\x04", b"K\x00", b"K\x02K\x02", b"K\x02K\x01")).unwrap();
    assert_eq!(sound.get("w").unwrap().shape(), [2, 2]);
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    let cases: [(Vec<u8>, &str); 11] = [
        (one_tensor("FloatStorage", b"K\x05", b"K\x00", b"K\x02", b"K\x01"), "must be 20 bytes long, got 16"),
        (one_tensor("FloatStorage", huge, b"K\x00", b"K\x02", b"K\x01"), "storage of 9223372036854775807 elements"),
        (one_tensor("FloatStorage", b"K\x04", b"K\x00", b"K\x05", b"K\x01"), "tensor `w`: shape [5]"),
        (one_tensor("FloatStorage", b"K\x04", b"K\x03", b"K\x02", b"K\x01"), "leaves its storage `0` of 4 elements"),
        (one_tensor("FloatStorage", b"K\x04", b"K\x00", b"K\x02", b"K\x04"), "leaves its storage"),
        (one_tensor("FloatStorage", b"K\x04", huge, b"K\x02", huge), "leaves its storage"),
        (one_tensor("FloatStorage", b"K\x04", b"K\x00", &[huge.as_slice(), huge].concat(), b"K\x01K\x01"), "larger than any machine"),
        (one_tensor("FloatStorage", b"K\x04", b"K\x00", b"J\x00\x00\x00\x40", b"K\x00"), "more than 64 times"),
        (one_tensor("FloatStorage", b"K\x04", b"K\x00", b"J\xff\xff\xff\xff", b"K\x01"), "size, stride or offset -1"),
        (one_tensor("FloatStorage", b"K\x04", b"K\x00", b"K\x02", b"K\x01K\x01"), "with 2 strides"),
        (one_tensor("ComplexFloatStorage", b"K\x04", b"K\x00", b"K\x02", b"K\x01"), "`torch.ComplexFloatStorage`"),
    ];
    for (pickle, part) in cases {
        let message = read(&pickle).unwrap_err().to_string();
        assert!(message.contains("`lies.pth`") && message.contains(part), "expected `{part}` in: {message}");
    }
    // A stride that is never taken may be anything.
    let unit = one_tensor("FloatStorage", b"K\x04", b"K\x00", b"K\x02K\x01", &[b"K\x02".as_slice(), huge].concat());
    assert_eq!(read(&unit).unwrap().get("w").unwrap().n_elements(), 2);
}

#[test]
fn short_pickles_that_grow_are_refused() {
    // One list of 20,000 numbers, made into a dictionary's items or a shape again and again.
    let mut pickle = b"\x80\x02(".to_vec();
    pickle.extend(b"K\x01K\x01\x86".repeat(20_000));
    pickle.extend(b"lq\x000");
    pickle.extend(b"ccollections\nOrderedDict\nq\x010");
    pickle.extend(b"h\x01h\x00\x85R0".repeat(20_000));
    pickle.extend(b"}.");
    let bytes = archive(&pickle, &[]);
    let message = pth::from_bytes(&bytes, Path::new("grows.pth")).unwrap_err().to_string();
    assert!(message.contains("copies lists again and again"), "{message}");
    // Depth costs nothing: a hundred thousand lists within one another.
    let deep = [b"\x80\x02".to_vec(), b"]".repeat(100_000), b"a".repeat(99_999), b".".to_vec()].concat();
    let message = pth::from_bytes(&archive(&deep, &[]), Path::new("deep.pth")).unwrap_err().to_string();
    assert!(message.contains("holds a list"), "{message}");
    // Nor do cycles.
    let cycle = b"\x80\x02}q\x00X\x05\0\0\0modelh\x00s.";
    let message = pth::from_bytes(&archive(cycle, &[]), Path::new("cycle.pth")).unwrap_err().to_string();
    assert!(message.contains("more than 4 wrappers"), "{message}");
}

#[test]
fn zip_directories_that_lie_about_their_size_cost_nothing() {
    // A zip64 directory that claims 2^40 entries of 2^46 bytes.
    let mut bytes = fixture("plain.pth");
    let end = bytes.windows(4).rposition(|w| w == b"PK\x05\x06").unwrap();
    let start = u32::from_le_bytes(bytes[end + 16..end + 20].try_into().unwrap());
    bytes.truncate(end);
    for (declared, at) in [(1u64 << 40, u64::from(start)), (1 << 40, 1 << 50), (u64::MAX, u64::MAX)] {
        let mut lying = bytes.clone();
        let record = lying.len() as u64;
        lying.extend(b"PK\x06\x06");
        lying.extend(44u64.to_le_bytes());
        lying.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for field in [declared, declared, declared.saturating_mul(64), at] {
            lying.extend(field.to_le_bytes());
        }
        lying.extend(b"PK\x06\x07\0\0\0\0");
        lying.extend(record.to_le_bytes());
        lying.extend([1, 0, 0, 0]);
        lying.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
        let result = watched(lying.len(), || pth::from_bytes(&lying, Path::new("lies.pth")));
        assert!(result.unwrap_err().to_string().contains("`lies.pth`"));
    }
}
