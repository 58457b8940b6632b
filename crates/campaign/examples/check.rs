//! Loads all campaigns of a directory, lays every step out, and says what is wrong: `check DIR`.

use std::io::Write as _;
use std::path::Path;

use hypovisor_abi::Width;
use hypovisor_campaign::{Campaign, Saved, hazard};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).ok_or("usage: check DIR")?;
    let mut wrong = 0;
    let campaigns = Campaign::load_all(Path::new(&directory))?;
    for campaign in &campaigns {
        for (index, step) in campaign.steps.iter().enumerate() {
            let saved: Saved = campaign
                .steps
                .iter()
                .flat_map(|step| &step.save)
                .map(|(name, _)| (name.clone(), 1))
                .collect();
            let plan = step.plan(Width::Bits64, campaign.seed, 0, &saved);
            let hazard = hazard(&step.call).filter(|_| !step.force).map(str::to_owned);
            if let Some(problem) = plan.err().map(|error| error.to_string()).or(hazard) {
                writeln!(
                    std::io::stdout(),
                    "{}: steps[{index}]: {}: {problem}",
                    campaign.id,
                    step.call.name()
                )?;
                wrong += 1;
            }
        }
    }
    writeln!(std::io::stdout(), "{} campaigns, {wrong} problems", campaigns.len())?;
    Ok(())
}
