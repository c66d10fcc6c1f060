//! Models in several files: their names, and joining their headers.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use hypura_core::gguf::{
    GgmlType, GgufError, Header, HeaderBuilder, ShardName, check_name, merge, read_header,
};
use proptest::prelude::*;

/// Shard `index` of `count`, holding one tensor.
fn shard(index: u16, count: u16, total: i32, tensor: &str) -> (Header, u64) {
    let mut builder = HeaderBuilder::new();
    if index == 0 {
        builder.set("general.architecture", "llama");
    }
    builder.set_split(index, count, total).tensor(tensor, &[32], GgmlType::F32);
    read(&builder)
}

fn read(builder: &HeaderBuilder) -> (Header, u64) {
    let mut bytes = Vec::new();
    let layout = builder.write_header(&mut bytes).unwrap();
    (read_header(bytes.as_slice(), layout.file_bytes).unwrap(), layout.file_bytes)
}

fn join(shards: impl IntoIterator<Item = (Header, u64)>) -> Result<hypura_core::gguf::GgufSet, GgufError> {
    let (headers, sizes) = shards.into_iter().unzip();
    merge(headers, sizes)
}

#[test]
fn shards_become_one_model() {
    let set = join([shard(0, 3, 3, "a"), shard(1, 3, 3, "b"), shard(2, 3, 3, "c")]).unwrap();
    let found: Vec<_> = set.tensors.iter().map(|t| (t.name.as_str(), t.shard)).collect();
    assert_eq!(found, [("a", 0), ("b", 1), ("c", 2)]);
    assert_eq!(set.metadata.str("general.architecture").unwrap(), Some("llama"));
    assert_eq!(set.shard_bytes.len(), 3);
}

#[test]
fn a_single_file_needs_no_split_keys() {
    let mut builder = HeaderBuilder::new();
    builder.tensor("a", &[32], GgmlType::F32);
    assert_eq!(join([read(&builder)]).unwrap().tensors.len(), 1);
    assert_eq!(join([shard(0, 1, 1, "a")]).unwrap().tensors.len(), 1);
    let twice = join([read(&builder), read(&builder)]).unwrap_err();
    assert!(matches!(twice, GgufError::ShardCount { given: 2, count: 1 }), "{twice}");
}

#[test]
fn missing_and_mixed_shards_are_named() {
    let error = |shards: Vec<(Header, u64)>| join(shards).unwrap_err();
    let (a, b, c) = (shard(0, 3, 3, "a"), shard(1, 3, 3, "b"), shard(2, 3, 3, "c"));
    let missing = |missing| move |e: GgufError| matches!(e, GgufError::MissingShard { missing: m, count: 3 } if m == missing);
    assert!(missing(3)(error(vec![a.clone(), b.clone()])));
    assert!(missing(2)(error(vec![a.clone(), c.clone()])));
    assert!(missing(1)(error(vec![b.clone()])));
    assert!(matches!(error(vec![]), GgufError::NoShards));
    assert!(matches!(
        error(vec![a.clone(), c.clone(), b.clone()]),
        GgufError::ShardOrder { position: 2, found: 3 }
    ));
    assert!(matches!(
        error(vec![a.clone(), b.clone(), c.clone(), shard(3, 3, 3, "d")]),
        GgufError::ShardCount { given: 4, count: 3 }
    ));
    assert!(matches!(
        error(vec![a.clone(), shard(1, 2, 3, "b"), c.clone()]),
        GgufError::ShardCountsDiffer { position: 2, found: 2, count: 3 }
    ));
    assert!(matches!(
        error(vec![shard(0, 2, 9, "a"), shard(1, 2, 9, "b")]),
        GgufError::ShardTensors { found: 2, expected: 9 }
    ));
    assert!(matches!(
        error(vec![shard(0, 2, 2, "a"), shard(1, 2, 2, "a")]),
        GgufError::DuplicateTensor { name } if name == "a"
    ));
    let mut plain = HeaderBuilder::new();
    plain.tensor("b", &[32], GgmlType::F32);
    assert!(matches!(
        error(vec![shard(0, 2, 2, "a"), read(&plain)]),
        GgufError::NotAShard { position: 2, key: "split.no" }
    ));
    assert!(matches!(merge(vec![a.0], vec![]).unwrap_err(), GgufError::ShardSizes { headers: 1, sizes: 0 }));
}

#[test]
fn a_shard_under_another_name_is_told_which_name_it_should_have() {
    let (second, _) = shard(1, 3, 3, "b");
    assert!(check_name("dir/model-00002-of-00003.gguf", &second).is_ok());
    for (name, right) in [
        ("dir/model.gguf", "model-00002-of-00003.gguf"),
        ("model-00001-of-00003.gguf", "model-00002-of-00003.gguf"),
        ("model-00002-of-00004.gguf", "model-00002-of-00003.gguf"),
        ("blob", "blob-00002-of-00003.gguf"),
    ] {
        let error = check_name(name, &second).unwrap_err();
        assert!(
            matches!(&error, GgufError::MisnamedShard { index: 2, count: 3, expected } if expected == right),
            "{name}: {error}"
        );
    }
    let mut whole = HeaderBuilder::new();
    whole.tensor("a", &[32], GgmlType::F32);
    assert!(check_name("any name", &read(&whole).0).is_ok());
    assert!(check_name("one.gguf", &shard(0, 1, 1, "a").0).is_ok());
}

#[test]
fn names_of_shards_are_recognised() {
    let name = ShardName::parse("dir/model-Q4_K-00002-of-00003.gguf").unwrap();
    assert_eq!((name.prefix.as_str(), name.index, name.count), ("dir/model-Q4_K", 1, 3));
    assert_eq!(name.sibling(0), "dir/model-Q4_K-00001-of-00003.gguf");
    for other in [
        "model.gguf",
        "model-00001-of-00003.bin",
        "model-00000-of-00003.gguf",
        "model-00004-of-00003.gguf",
        "model-1-of-3.gguf",
        "model-+0001-of-00003.gguf",
        "model-00001-of-0003.gguf",
        "model-99999999999-of-99999999999.gguf",
    ] {
        assert_eq!(ShardName::parse(other), None, "{other}");
    }
}

proptest! {
    #[test]
    fn names_round_trip(prefix in "[ -~]{0,20}", count in 1_u32..=65_535, seed in any::<u32>()) {
        let name = ShardName { prefix, index: seed % count, count };
        prop_assert_eq!(ShardName::parse(&name.sibling(name.index)), Some(name));
    }

    #[test]
    fn any_name_is_parsed_without_harm(name in ".{0,40}") {
        if let Some(shard) = ShardName::parse(&name) {
            prop_assert_eq!(shard.sibling(shard.index), name);
        }
    }
}
