//! Writes `docs/rules.md` and `docs/rules.schema.json`: `cargo run -p hypovisor-rules --example docs`.

use std::path::Path;

use hypovisor_rules::reference;

fn main() -> std::io::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    std::fs::write(docs.join("rules.md"), reference::markdown())?;
    std::fs::write(docs.join("rules.schema.json"), reference::json_schema())
}
