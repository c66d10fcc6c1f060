//! Tests of the figures: what counts, and what does not.

use super::*;

fn measured(texts: &[(&str, &str)]) -> Result<Metrics> {
    let mut all = vec![("crates/a/Cargo.toml", "")];
    all.extend(texts);
    Metrics::of(&Tree::of_texts(&all))
}

#[test]
fn what_exists_for_tests_does_not_count() -> Result<()> {
    let text = "//! Doc.\nfn f() {\n    g().unwrap();\n}\n#[cfg(test)]\nmod tests {\n    fn t() { unsafe { x() }.unwrap() }\n}\n";
    let counts = measured(&[("crates/a/src/lib.rs", text), ("crates/a/tests/t.rs", "fn t() {}")])?.counts;
    assert_eq!((counts.files, counts.functions), (vec![4], vec![3]));
    assert_eq!((counts.lines, counts.doc_lines, counts.unwraps, counts.unsafe_blocks), (4, 1, 1, 0));
    Ok(())
}

#[test]
fn calls_and_unsafe_blocks_count_in_macros_too() -> Result<()> {
    let text = "fn f() { m!(x.unwrap(), unsafe { y }); z.expect(\"\"); unsafe { w } }\nfn unwrap() {}\nunsafe fn g() {}\n";
    let counts = measured(&[("crates/a/src/lib.rs", text)])?.counts;
    assert_eq!((counts.unwraps, counts.unsafe_blocks), (2, 2));
    Ok(())
}

#[test]
fn a_cycle_goes_over_definitions_and_not_over_reexports() -> Result<()> {
    let cycles = |one: &str, two: &str| -> Result<Vec<Vec<String>>> {
        let root = "mod one; mod two; pub use one::One; pub use two::Two;";
        let texts =
            [("crates/a/src/lib.rs", root), ("crates/a/src/one.rs", one), ("crates/a/src/two.rs", two)];
        Ok(measured(&texts)?.cycles.remove(0).1.into_iter().map(|cycle| cycle.modules).collect())
    };
    let (one, two) = ("use crate::Two; pub struct One;", "pub struct Two;");
    assert_eq!(cycles(one, two)?, <[Vec<String>; 0]>::default());
    let both = vec![vec!["crate::one".to_owned(), "crate::two".to_owned()]];
    assert_eq!(cycles(one, "use super::One; pub struct Two;")?, both);
    assert_eq!(cycles(one, "pub struct Two; fn f() { super::one::One::new(); }")?, both);
    assert_eq!(
        cycles(one, "pub struct Two; #[cfg(test)] mod tests { use crate::One; }")?,
        <[Vec<String>; 0]>::default()
    );
    Ok(())
}

#[test]
fn quantiles_are_values_that_occur() {
    let values: Vec<usize> = (1..=100).rev().collect();
    assert_eq!([0.5, 0.99, 1.0].map(|share| quantile(&values, share)), [50, 99, 100]);
    assert_eq!(quantile(&[7], 0.5), 7);
    assert_eq!(quantile(&[], 0.5), 0);
}
