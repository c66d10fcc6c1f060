//! The routing-trace format: what is written is read back, and nothing hostile gets far.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufReader, Read};

use hypura_core::trace::{
    FORMAT, LayerRoutes, MAX_LINE_BYTES, Phase, Trace, TraceError, TraceHeader, TraceReader, TraceToken,
    TraceWriter,
};
use proptest::prelude::*;

const LAYERS: u32 = 6;
const EXPERTS: u32 = 16;
const USED: u32 = 4;

fn header() -> TraceHeader {
    TraceHeader::new("a model, \"quoted\"", LAYERS, EXPERTS, USED, 4096)
}

fn routes(layer: u32) -> impl Strategy<Value = LayerRoutes> {
    let experts =
        proptest::sample::subsequence((0..EXPERTS).collect::<Vec<_>>(), 1..=USED as usize).prop_shuffle();
    (experts, any::<bool>(), prop::collection::vec(-1e30_f32..1e30, USED as usize)).prop_map(
        move |(experts, weighted, mut weights)| {
            weights.truncate(if weighted { experts.len() } else { 0 });
            LayerRoutes { layer, experts, weights }
        },
    )
}

fn token() -> impl Strategy<Value = TraceToken> {
    let phase = prop_oneof![Just(Phase::Prefill), Just(Phase::Decode)];
    let layers = proptest::sample::subsequence((0..LAYERS).collect::<Vec<_>>(), 0..=LAYERS as usize)
        .prop_flat_map(|layers| layers.into_iter().map(routes).collect::<Vec<_>>());
    (phase, layers).prop_map(|(phase, layers)| TraceToken { phase, layers })
}

fn write(trace: &Trace) -> Vec<u8> {
    let mut writer = TraceWriter::new(Vec::new(), trace.header.clone()).unwrap();
    for token in &trace.tokens {
        writer.token(token).unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Trace, TraceError> {
    TraceReader::new(bytes)?.into_trace()
}

fn read_token(line: &str) -> Result<Trace, TraceError> {
    let mut bytes = write(&Trace { header: header(), tokens: Vec::new() });
    bytes.extend_from_slice(line.as_bytes());
    read(&bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(tokens in prop::collection::vec(token(), 0..20)) {
        let trace = Trace { header: header(), tokens };
        prop_assert_eq!(read(&write(&trace)).unwrap(), trace);
    }

    /// Any damage gives an error or a valid trace, never a panic.
    #[test]
    fn damage_is_harmless(
        tokens in prop::collection::vec(token(), 1..5),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = write(&Trace { header: header(), tokens });
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(length.index(bytes.len() + 1));
        if let Ok(trace) = read(&bytes) {
            prop_assert_eq!(read(&write(&trace)).unwrap(), trace);
        }
    }

    #[test]
    fn noise_is_harmless(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(&bytes).is_err());
    }
}

#[test]
fn reads_the_documented_form() {
    let text = concat!(
        r#"{"format": "route-trace/1", "model": "m", "layers": 48, "experts": 128, "used": 8, "expert_bytes": 3059712}"#,
        "\n",
        r#"{"phase":"prefill","layers":[[0,[49,19],[0.75,0.25]],[1,[68,55]]]}"#,
        "\r\n\n",
        r#"{"phase":"decode","layers":[]}"#,
    );
    let trace = read(text.as_bytes()).unwrap();
    assert_eq!(trace.header, TraceHeader::new("m", 48, 128, 8, 3_059_712));
    let first = LayerRoutes { layer: 0, experts: vec![49, 19], weights: vec![0.75, 0.25] };
    let second = LayerRoutes { layer: 1, experts: vec![68, 55], weights: Vec::new() };
    assert_eq!(trace.tokens[0], TraceToken { phase: Phase::Prefill, layers: vec![first, second] });
    assert_eq!(trace.tokens[1], TraceToken { phase: Phase::Decode, layers: Vec::new() });
    assert_eq!(trace.tokens.len(), 2);
}

#[test]
fn a_token_that_breaks_a_rule_is_refused_with_its_line() {
    let cases = [
        ("[[6,[1]]]", "layer 6"),
        ("[[2,[1]],[1,[1]]]", "layer 1"),
        ("[[2,[1]],[2,[1]]]", "layer 2"),
        ("[[0,[]]]", "lists 0 experts"),
        ("[[0,[1,2,3,4,5]]]", "lists 5 experts"),
        ("[[0,[16]]]", "expert 16 of 16"),
        ("[[0,[3,1,3]]]", "expert 3 twice"),
        ("[[0,[1,2],[0.5]]]", "1 weights for 2 experts"),
        ("[[0,[1],[1e39]]]", "not a finite number"),
    ];
    for (layers, complaint) in cases {
        let error = read_token(&format!(r#"{{"phase":"decode","layers":{layers}}}"#)).unwrap_err();
        assert!(matches!(error, TraceError::Token { line: 2, .. }), "{layers}: {error:?}");
        assert!(error.to_string().contains(complaint), "{layers}: {error}");
    }
}

#[test]
fn a_line_that_is_not_the_format_is_refused_with_its_line() {
    for line in [
        "{",
        r#"{"phase":"decode"}"#,
        r#"{"phase":"dream","layers":[]}"#,
        r#"{"phase":"decode","layers":[[0]]}"#,
        r#"{"phase":"decode","layers":[[-1,[0]]]}"#,
        r#"{"phase":"decode","layers":[[0,[0],[0.5],7]]}"#,
    ] {
        let error = read_token(line).unwrap_err();
        assert!(matches!(error, TraceError::Json { line: 2, .. }), "{line}: {error:?}");
    }
}

#[test]
fn a_header_out_of_bounds_is_refused() {
    let base = header();
    let bad = [
        TraceHeader { format: "route-trace/2".to_owned(), ..base.clone() },
        TraceHeader { layers: 0, ..base.clone() },
        TraceHeader { layers: 5000, ..base.clone() },
        TraceHeader { experts: 70_000, ..base.clone() },
        TraceHeader { used: 0, ..base.clone() },
        TraceHeader { used: EXPERTS + 1, ..base.clone() },
        TraceHeader { expert_bytes: 0, ..base },
    ];
    for header in bad {
        assert!(
            matches!(TraceWriter::new(Vec::new(), header.clone()), Err(TraceError::Header(_))),
            "{header:?}"
        );
        let line = format!(
            r#"{{"format":"{}","model":"m","layers":{},"experts":{},"used":{},"expert_bytes":{}}}"#,
            header.format, header.layers, header.experts, header.used, header.expert_bytes
        );
        assert!(matches!(read(line.as_bytes()), Err(TraceError::Header(_))), "{line}");
    }
    assert!(matches!(read(b""), Err(TraceError::NoHeader)));
    assert_eq!(header().format, FORMAT);
}

/// A reader of one endless line that counts what was taken from it.
#[derive(Debug)]
struct Endless {
    taken: usize,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer.fill(b' ');
        self.taken += buffer.len();
        Ok(buffer.len())
    }
}

#[test]
fn an_endless_line_is_given_up() {
    let mut source = BufReader::new(Endless { taken: 0 });
    let error = TraceReader::new(&mut source).unwrap_err();
    assert!(matches!(error, TraceError::LineTooLong { line: 1 }), "{error:?}");
    assert!(source.get_ref().taken <= 2 * MAX_LINE_BYTES);
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let mut writer = TraceWriter::new(Vec::new(), header()).unwrap();
    let routes = LayerRoutes { layer: 0, experts: vec![1], weights: vec![f32::NAN] };
    let error = writer.token(&TraceToken { phase: Phase::Decode, layers: vec![routes] }).unwrap_err();
    assert!(matches!(error, TraceError::Token { line: 2, .. }));
    // Nothing of the refused token was written.
    assert_eq!(writer.finish().unwrap(), write(&Trace { header: header(), tokens: Vec::new() }));
}

#[test]
fn nothing_is_read_after_an_error() {
    let mut bytes = write(&Trace { header: header(), tokens: Vec::new() });
    bytes.extend_from_slice(b"nonsense\n{\"phase\":\"decode\",\"layers\":[]}\n");
    let mut reader = TraceReader::new(&bytes[..]).unwrap();
    assert!(reader.next().unwrap().is_err());
    assert!(reader.next().is_none());
}
