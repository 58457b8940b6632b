//! Writes `docs/rules.md`, `docs/rules.schema.json`, and the tables of `rules/xen/README.md`:
//! `cargo run -p hypovisor-rules --example docs`.

use std::error::Error;
use std::path::Path;

use hypovisor_rules::{Rules, reference};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::write(root.join("docs/rules.md"), reference::markdown())?;
    std::fs::write(root.join("docs/rules.schema.json"), reference::json_schema())?;
    let (pack, readme) = (root.join("rules/xen"), root.join("rules/xen/README.md"));
    let renewed = reference::renew_pack(&std::fs::read_to_string(&readme)?, &Rules::load(&pack)?);
    Ok(std::fs::write(readme, renewed)?)
}
