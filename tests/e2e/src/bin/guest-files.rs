//! Prints lines for a shell that tell the tests of single crates where the guest's files are.

use std::io::Write as _;

use tart_assets::{AgentSource, BootRequest, KernelSource, Store, default_root};

fn main() -> anyhow::Result<()> {
    let request = BootRequest { kernel: KernelSource::Distribution, agent: AgentSource::Installed };
    let boot = Store::open(&default_root())?.boot_assets(&request)?;
    let mut output = std::io::stdout();
    writeln!(output, "export TART_TEST_KERNEL='{}'", boot.kernel.display())?;
    writeln!(output, "export TART_TEST_INITRD='{}'", boot.initrd.display())?;
    Ok(())
}
