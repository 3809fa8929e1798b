//! `layers`: the allowed dependencies between crates, and between files inside a crate.

mod files;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::shell::{Failure, command, failure};

/// The crates of the workspace that each crate may use. Crates without a row are refused.
///
/// A new edge is a change of the architecture: `docs/architecture.md` has the picture.
const ALLOWED: [(&str, &[&str]); 15] = [
    ("webhooks-core", &[]),
    ("webhooks-sign", &[]),
    ("webhooks-registry", &["webhooks-core", "webhooks-sign"]),
    ("webhooks-dispatch", &["webhooks-core", "webhooks-sign", "webhooks-registry"]),
    (
        "webhooks-http",
        &["webhooks-core", "webhooks-sign", "webhooks-registry", "webhooks-dispatch"],
    ),
    (
        "webhooks-sqlite",
        &["webhooks-core", "webhooks-sign", "webhooks-registry", "webhooks-dispatch"],
    ),
    // The stores lend it transactions, by features.
    ("webhooks-admin", &["webhooks-core", "webhooks-sqlite", "webhooks-postgres"]),
    (
        "webhooks-server",
        &[
            "webhooks-core",
            "webhooks-registry",
            "webhooks-dispatch",
            "webhooks-http",
            "webhooks-admin",
            "webhooks-sqlite", // in an example
        ],
    ),
    ("webhooks-receive", &["webhooks-core", "webhooks-sign"]),
    (
        "webhooks-postgres",
        &["webhooks-core", "webhooks-sign", "webhooks-registry", "webhooks-dispatch"],
    ),
    (
        "webhooks-conformance",
        &["webhooks-core", "webhooks-registry", "webhooks-dispatch", "webhooks-receive"],
    ),
    (
        "webhooks",
        &[
            "webhooks-core",
            "webhooks-sign",
            "webhooks-registry",
            "webhooks-dispatch",
            "webhooks-http",
            "webhooks-sqlite",
            "webhooks-postgres",
            "webhooks-receive",
        ],
    ),
    (
        "webhooks-cli",
        &[
            "webhooks-core",
            "webhooks-sign",
            "webhooks-registry",
            "webhooks-dispatch",
            "webhooks-http",
            "webhooks-sqlite",
            "webhooks-postgres",
            "webhooks-receive",
            "webhooks-admin",
            "webhooks-server",
            "webhooks-tests", // a PostgreSQL, in tests
        ],
    ),
    (
        "webhooks-tests",
        &[
            "webhooks",
            "webhooks-admin",
            "webhooks-conformance",
            "webhooks-core",
            "webhooks-sign",
            "webhooks-registry",
            "webhooks-dispatch",
            "webhooks-http",
            "webhooks-sqlite",
            "webhooks-postgres",
            "webhooks-receive",
            "webhooks-server",
        ],
    ),
    ("xtask", &[]),
];

/// The dependencies of webhooks-sign without features. They are few, because receivers may use it
/// alone.
const SIGN_DEPENDENCIES: [&str; 5] = ["base64", "hmac", "sha2", "subtle", "zeroize"];

/// The crates of the workspace that each crate uses, as a dependency of any kind.
type Graph = BTreeMap<String, Vec<String>>;

pub(crate) fn run() -> Result<(), Failure> {
    println!("\n$ cargo xtask layers");
    let graph = graph(&metadata()?);
    for (name, uses) in &graph {
        println!("{name} → {}", if uses.is_empty() { "nothing".into() } else { uses.join(", ") });
    }
    Failure::if_any(&violations(&graph))?;
    check_sign()?;
    files::check()
}

fn check_sign() -> Result<(), Failure> {
    let line =
        "cargo tree -p webhooks-sign -e normal --depth 1 --prefix none --format {p} --locked";
    let found = output(line)?;
    let found = String::from_utf8_lossy(&found);
    // The first is webhooks-sign itself; each name stands before its version.
    let names: Vec<&str> =
        found.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    if names == SIGN_DEPENDENCIES {
        return Ok(());
    }
    Err(Failure(format!("webhooks-sign depends on {names:?}; allowed: {SIGN_DEPENDENCIES:?}")))
}

/// Returns the output of a command.
fn output(line: &str) -> Result<Vec<u8>, Failure> {
    let output = command(line).output().map_err(failure(&format!("run `{line}`")))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(Failure(format!("`{line}` failed: {reason}")));
    }
    Ok(output.stdout)
}

fn metadata() -> Result<Value, Failure> {
    let line = "cargo metadata --format-version 1 --no-deps --locked";
    serde_json::from_slice(&output(line)?)
        .map_err(|error| Failure(format!("cannot read what `{line}` prints: {error}")))
}

fn graph(metadata: &Value) -> Graph {
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let names: Vec<&Value> = packages().map(|package| &package["name"]).collect();
    let uses = |package: &Value| {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let mut uses: Vec<String> = dependencies
            .map(|dependency| &dependency["name"])
            .filter(|name| names.contains(name))
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect();
        uses.sort();
        uses.dedup();
        uses
    };
    packages()
        .filter_map(|package| Some((package["name"].as_str()?.to_owned(), uses(package))))
        .collect()
}

fn violations(graph: &Graph) -> Vec<String> {
    let mut violations = Vec::new();
    for (name, uses) in graph {
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| known == name) else {
            violations.push(format!("{name} has no row in the table of layers"));
            continue;
        };
        for used in uses.iter().filter(|used| !allowed.contains(&used.as_str())) {
            violations.push(format!("{name} must not use {used}; allowed: {allowed:?}"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, uses: &[&str], expected: &[&str]) {
        let uses = uses.iter().map(|used| (*used).to_owned()).collect();
        assert_eq!(violations(&Graph::from([(name.to_owned(), uses)])), expected);
    }

    #[test]
    fn downward_edges_pass_and_all_others_are_named() {
        check("webhooks-dispatch", &["webhooks-core", "webhooks-registry"], &[]);
        check(
            "webhooks-core",
            &["webhooks-dispatch"],
            &["webhooks-core must not use webhooks-dispatch; allowed: []"],
        );
        check(
            "webhooks-sign",
            &["webhooks-core"],
            &["webhooks-sign must not use webhooks-core; allowed: []"],
        );
        check("webhooks-extra", &[], &["webhooks-extra has no row in the table of layers"]);
    }

    #[test]
    fn dev_dependencies_count() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "webhooks-core", "dependencies": [
                { "name": "serde", "kind": null },
                { "name": "webhooks-http", "kind": "dev" },
            ] },
            { "name": "webhooks-http", "dependencies": [] },
        ] });
        let graph = graph(&metadata);
        assert_eq!(graph["webhooks-core"], ["webhooks-http"]);
        assert_eq!(violations(&graph).len(), 1);
    }
}
