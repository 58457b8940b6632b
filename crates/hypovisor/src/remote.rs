//! `hypovisor resume` and `reload`: asking the engine that runs.

use std::io::Write as _;

use hypovisor_engine::remote::Request;

use crate::inject::connect;

pub(crate) fn resume() -> anyhow::Result<u8> {
    let mut engine = connect(None)?;
    engine.ask(&Request::Resume {})?;
    engine.answer()?;
    Ok(0)
}

pub(crate) fn reload() -> anyhow::Result<u8> {
    let mut engine = connect(None)?;
    engine.ask(&Request::ReloadRules {})?;
    let answer = engine.answer()?;
    writeln!(std::io::stdout(), "{} rules in force", answer["rules"])?;
    Ok(0)
}
