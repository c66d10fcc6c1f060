//! Crates depend on each other in these directions only: `hypura → {server, store, engine, core}`,
//! `server → {store, engine, core, ui}`, `store → core`, `engine → {core, storage, ggml, ggml-rpc}`,
//! `hypura → workers`, `ggml-rpc → ggml`. The other leaves do not know each other. Some libraries belong to
//! some crates only: above all, llama.cpp is named by `crates/ggml` and `crates/ggml-rpc` alone.
//!
//! Build- and dev-dependencies follow the same directions, with one exception: the tests of `storage` and
//! `ggml` may use `core`, whose synthetic models are their fixtures.

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use super::Finding;
use crate::tree::Tree;

/// What a package of this workspace may depend on.
struct Rule {
    package: &'static str,
    may_use: &'static [&'static str],
    tests_may_use: &'static [&'static str],
}

const RULES: [Rule; 12] = [
    Rule { package: "hypura-core", may_use: &[], tests_may_use: &[] },
    Rule { package: "hypura-storage", may_use: &[], tests_may_use: &["hypura-core"] },
    Rule { package: "hypura-ggml", may_use: &[], tests_may_use: &["hypura-core"] },
    Rule { package: "hypura-ggml-rpc", may_use: &["hypura-ggml"], tests_may_use: &[] },
    Rule { package: "hypura-workers", may_use: &[], tests_may_use: &[] },
    Rule {
        package: "hypura-engine",
        may_use: &["hypura-core", "hypura-storage", "hypura-ggml", "hypura-ggml-rpc"],
        tests_may_use: &[],
    },
    Rule { package: "hypura-store", may_use: &["hypura-core"], tests_may_use: &[] },
    Rule {
        package: "hypura-server",
        may_use: &["hypura-core", "hypura-engine", "hypura-store", "hypura-ui"],
        tests_may_use: &[],
    },
    Rule { package: "hypura-ui", may_use: &[], tests_may_use: &[] },
    Rule {
        package: "hypura",
        may_use: &["hypura-core", "hypura-engine", "hypura-store", "hypura-server", "hypura-workers"],
        tests_may_use: &[],
    },
    Rule { package: "hypura-fuzz", may_use: &["hypura-core", "hypura-store"], tests_may_use: &[] },
    Rule { package: "xtask", may_use: &[], tests_may_use: &[] },
];

/// Libraries that only these packages may name, in any kind of dependency.
const RESERVED: [(&str, &[&str]); 13] = [
    ("rustls", &["hypura-workers"]),
    ("mdns-sd", &["hypura-workers"]),
    ("llama-cpp-sys-4", &["hypura-ggml", "hypura-ggml-rpc"]),
    ("bindgen", &["hypura-ggml"]),
    ("io-uring", &["hypura-storage"]),
    // The engine and what is below it know neither the command line nor HTTP; errors of libraries are typed.
    ("anyhow", &["hypura", "xtask"]),
    ("clap", &["hypura", "xtask"]),
    ("indicatif", &["hypura"]),
    ("rustyline", &["hypura"]),
    ("tokio", &["hypura", "hypura-server"]),
    ("hyper", &["hypura-server"]),
    ("axum", &["hypura-server"]),
    ("ureq", &["hypura", "hypura-store"]),
];

/// In the manifest of the workspace these would be within reach of every crate.
const NOT_FOR_THE_WORKSPACE: [&str; 1] = ["llama-cpp-sys-4"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Build,
    Dev,
}

const TABLES: [(&str, Kind); 3] =
    [("dependencies", Kind::Normal), ("build-dependencies", Kind::Build), ("dev-dependencies", Kind::Dev)];

pub(crate) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts("Cargo.toml") {
        let manifest: Table = toml::from_str(text).with_context(|| format!("cannot read {path}"))?;
        let messages = judge_package(&manifest).into_iter().chain(judge_workspace(&manifest));
        findings.extend(messages.map(|message| Finding::of_file(path, message)));
    }
    Ok(findings)
}

fn judge_package(manifest: &Table) -> Vec<String> {
    let Some(package) =
        manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str)
    else {
        return Vec::new();
    };
    let Some(rule) = RULES.iter().find(|rule| rule.package == package) else {
        return vec![format!(
            "no rule says what `{package}` may depend on: add it to xtask/src/tidy/dependencies.rs"
        )];
    };
    let uses = dependencies(manifest);
    uses.iter().filter_map(|(dependency, kind)| judge_edge(rule, dependency, *kind)).collect()
}

fn judge_edge(rule: &Rule, dependency: &str, kind: Kind) -> Option<String> {
    let package = rule.package;
    if let Some((_, owners)) = RESERVED.iter().find(|(name, _)| *name == dependency) {
        let message = format!(
            "`{package}` must not depend on `{dependency}`, which is for {} only",
            owners.join(" and ")
        );
        return (!owners.contains(&package)).then_some(message);
    }
    let ours = RULES.iter().any(|other| other.package == dependency);
    let permitted =
        rule.may_use.contains(&dependency) || (kind == Kind::Dev && rule.tests_may_use.contains(&dependency));
    (ours && !permitted).then(|| {
        format!(
            "`{package}` must not depend on `{dependency}`; it may use: {}",
            match rule.may_use {
                [] => "no crate of ours".to_owned(),
                names => names.join(", "),
            }
        )
    })
}

fn judge_workspace(manifest: &Table) -> Vec<String> {
    let Some(workspace) = manifest.get("workspace").and_then(Value::as_table) else { return Vec::new() };
    let named = dependencies(workspace);
    named
        .iter()
        .filter(|(name, _)| NOT_FOR_THE_WORKSPACE.contains(&name.as_str()))
        .map(|(name, _)| format!("`{name}` must not be a dependency of the workspace"))
        .collect()
}

/// All dependencies of a manifest by their package names, those of `[target.'…']` too.
fn dependencies(manifest: &Table) -> Vec<(String, Kind)> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let tables = targets.into_iter().flat_map(|targets| targets.values()).filter_map(Value::as_table);
    let mut found = Vec::new();
    for table in tables.chain([manifest]) {
        for (name, kind) in TABLES {
            let Some(entries) = table.get(name).and_then(Value::as_table) else { continue };
            for (key, entry) in entries {
                // `alias = { package = "name" }` is the package, whatever it is called here.
                let package = entry.get("package").and_then(Value::as_str).unwrap_or(key);
                found.push((package.to_owned(), kind));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in the manifest of `package` with `rest` after its name.
    fn found(package: &str, rest: &str) -> Result<Vec<String>> {
        let manifest = format!("[package]\nname = \"{package}\"\n{rest}\n");
        let tree = Tree::of_texts(&[("crates/x/Cargo.toml", &manifest)]);
        Ok(check(&tree)?.into_iter().map(|finding| finding.message).collect())
    }

    #[test]
    fn every_pair_of_our_crates_is_judged() -> Result<()> {
        let permitted = [
            ("hypura", "hypura-core"),
            ("hypura", "hypura-engine"),
            ("hypura", "hypura-store"),
            ("hypura", "hypura-server"),
            ("hypura", "hypura-workers"),
            ("hypura-server", "hypura-core"),
            ("hypura-server", "hypura-engine"),
            ("hypura-server", "hypura-store"),
            ("hypura-server", "hypura-ui"),
            ("hypura-store", "hypura-core"),
            ("hypura-engine", "hypura-core"),
            ("hypura-engine", "hypura-storage"),
            ("hypura-engine", "hypura-ggml"),
            ("hypura-engine", "hypura-ggml-rpc"),
            ("hypura-ggml-rpc", "hypura-ggml"),
            ("hypura-fuzz", "hypura-core"),
            ("hypura-fuzz", "hypura-store"),
        ];
        for from in &RULES {
            for to in &RULES {
                let rest = format!("[dependencies]\n{}.workspace = true", to.package);
                let is_permitted = permitted.contains(&(from.package, to.package));
                assert_eq!(
                    found(from.package, &rest)?.is_empty(),
                    is_permitted,
                    "{} → {}",
                    from.package,
                    to.package
                );
            }
        }
        Ok(())
    }

    #[test]
    fn dev_dependencies_follow_the_rule_but_for_fixtures() -> Result<()> {
        let dev = |name: &str| format!("[dev-dependencies]\n{name}.workspace = true");
        assert_eq!(found("hypura-ggml", &dev("hypura-core"))?, Vec::<String>::new());
        assert_eq!(found("hypura-storage", &dev("hypura-core"))?, Vec::<String>::new());
        assert_eq!(found("hypura-ggml", &dev("hypura-storage"))?.len(), 1);
        assert_eq!(found("hypura-core", &dev("hypura-ggml"))?.len(), 1);
        assert_eq!(found("hypura", &dev("hypura-ggml"))?.len(), 1);
        assert_eq!(found("hypura-ggml", "[build-dependencies]\nhypura-core.workspace = true")?.len(), 1);
        Ok(())
    }

    #[test]
    fn llama_cpp_is_named_by_the_crates_around_it_alone() -> Result<()> {
        let direct = "[dependencies]\nllama-cpp-sys-4 = \"=0.11.0\"";
        assert_eq!(found("hypura-ggml", direct)?, Vec::<String>::new());
        assert_eq!(found("hypura-ggml-rpc", direct)?, Vec::<String>::new());
        for package in [
            "hypura",
            "hypura-server",
            "hypura-store",
            "hypura-engine",
            "hypura-core",
            "hypura-storage",
            "xtask",
        ] {
            let message = format!(
                "`{package}` must not depend on `llama-cpp-sys-4`, which is for hypura-ggml and \
                 hypura-ggml-rpc only"
            );
            assert_eq!(found(package, direct)?, [message]);
        }
        let workspace = "[workspace.dependencies]\nllama-cpp-sys-4 = \"=0.11.0\"\n";
        assert_eq!(check(&Tree::of_texts(&[("Cargo.toml", workspace)]))?.len(), 1);
        Ok(())
    }

    #[test]
    fn neither_another_name_nor_a_target_hides_a_dependency() -> Result<()> {
        let renamed = "[dependencies]\nharmless = { package = \"tokio\", version = \"1\" }";
        assert_eq!(found("hypura-engine", renamed)?.len(), 1);
        let target = "[target.'cfg(unix)'.dev-dependencies]\nhypura-ggml.workspace = true";
        assert_eq!(found("hypura-storage", target)?.len(), 1);
        Ok(())
    }

    #[test]
    fn a_new_package_needs_a_rule_and_other_libraries_need_none() -> Result<()> {
        assert_eq!(found("hypura-new", "")?.len(), 1);
        assert_eq!(found("hypura-core", "[dependencies]\nthiserror.workspace = true")?, Vec::<String>::new());
        Ok(())
    }

    #[test]
    fn a_manifest_that_is_no_toml_is_an_error() {
        assert!(found("hypura", "[dependencies\n").is_err());
    }
}
