//! Checks that need no test run.

use anyhow::Result;

use crate::shell::{cargo, command, complain, run};

/// The tree, the format, the lints.
pub(crate) fn run_all() -> Result<()> {
    complain("== checking the tree");
    run(command("dev/check-tree", [""; 0]))?;
    complain("== checking the format");
    run(cargo(["fmt", "--all", "--check"]))?;
    complain("== checking the lints");
    run(cargo([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "--deny",
        "warnings",
    ]))
}
