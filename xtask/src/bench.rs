//! `bench`: the costs of the main operations, as ratios within one run.

use crate::shell::{Failure, run};

/// The benchmarks of `webhooks-tests`.
pub(crate) const NAMES: [&str; 5] = ["deliver", "postgres", "scale", "server", "sign"];

pub(crate) fn run_one(name: &str, flags: &[&str]) -> Result<(), Failure> {
    if !NAMES.contains(&name) {
        return Err(Failure(format!("no benchmark is called {name:?}; there is {NAMES:?}")));
    }
    let is_known =
        |flag: &str| ["--json", "--quick"].contains(&flag) || flag.starts_with("--only=");
    if let Some(unknown) = flags.iter().find(|flag| !is_known(flag)) {
        return Err(Failure(format!(
            "no flag is called {unknown:?}; there are --json, --quick and --only=PART"
        )));
    }
    let flags = flags.join(" ");
    run(&format!("cargo bench --quiet --locked -p webhooks-tests --bench {name} -- {flags}"))
}
