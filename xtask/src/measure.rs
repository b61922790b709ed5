//! Measurements, which are a program of their own: they are worth nothing without optimization.

use anyhow::Result;

use crate::product::{self, Product};
use crate::shell::{cargo, run};

/// Builds the product and measures it.
pub(crate) fn measure(command: &str, arguments: &[String]) -> Result<()> {
    let Product { tart, agent } = product::product(false)?;
    let mut measure = cargo(["run", "--quiet", "--release", "--package", "tart-measure", "--", command]);
    measure.args(arguments).env("TART_BINARY", tart).env("TART_AGENT", agent);
    run(measure)
}
