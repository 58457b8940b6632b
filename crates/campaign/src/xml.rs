//! hInjector's scenarios: XML with `scenario/hcall/parameter/struct/member`.
//!
//! hInjector (Milenkoski et al., "HInjector: injecting hypercall attacks for evaluating VMI-based intrusion detection
//! systems", 2013) describes a scenario as hypercalls with parameters, structures and members. Of it is read:
//!
//! ```text
//! <scenario name="…" repeat="…" rate="…">             repeat: of each call; rate: calls a second
//!   <hcall name="memory_op" | id="12" repeat="…" rate="…">
//!     <parameter name="cmd" value="11"/>              value, or values="1,2,3", or range="1-10"
//!     <parameter name="arg">
//!       <struct>  <member name="nr_exchanged" value="1"/>
//!                 <member name="in"><struct>…</struct></member>  </struct>
//!     </parameter>
//!   </hcall>
//! </scenario>
//! ```
//!
//! Parameters without a name are the argument registers in their order. Names are those of the ABI's tables.

use std::path::Path;

use roxmltree::{Document, Node};
use serde_json::{Map, Value, json};

use crate::call::CallSpec;
use crate::file::{Campaign, CampaignError, Expectation, Kind, MAX_REPEAT, MAX_STEPS, Rate, Step, Target};

/// The deepest nesting of structures.
const MAX_DEPTH: usize = 8;
/// The most nodes of a document.
const MAX_NODES: u32 = 10_000;

/// Reads a scenario.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Campaign, CampaignError> {
    let malformed = |message: String| CampaignError::Malformed { path: path.to_owned(), message };
    let options =
        roxmltree::ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..Default::default() };
    let document =
        Document::parse_with_options(text, options).map_err(|error| malformed(error.to_string()))?;
    let root = document.root_element();
    if !root.has_tag_name("scenario") {
        return Err(malformed(format!("a <scenario> is wanted, not <{}>", root.tag_name().name())));
    }
    let calls = root.children().filter(|node| node.has_tag_name("hcall"));
    let steps = calls.enumerate().map(|(index, node)| {
        step(root, node).map_err(|message| CampaignError::Step {
            path: path.to_owned(),
            step: index,
            message,
        })
    });
    let steps: Vec<Step> = steps.collect::<Result<_, _>>()?;
    if steps.is_empty() || steps.len() > MAX_STEPS {
        return Err(malformed(format!("between 1 and {MAX_STEPS} <hcall> are wanted")));
    }
    let name = root.attribute("name").unwrap_or("scenario").to_owned();
    Ok(Campaign {
        id: name.clone(),
        title: name,
        kind: Kind::Attack,
        rules: Vec::new(),
        target: Target::Any,
        class: String::new(),
        safe: String::new(),
        seed: 1,
        steps,
    })
}

fn step(scenario: Node<'_, '_>, node: Node<'_, '_>) -> Result<Step, String> {
    let attribute = |name| node.attribute(name).or_else(|| scenario.attribute(name));
    let name =
        node.attribute("name").or_else(|| node.attribute("id")).ok_or("an <hcall> needs a name or an id")?;
    let repeat = attribute("repeat").map_or(Ok(1), str::parse).map_err(|_| "repeat is no number")?;
    let rate =
        attribute("rate").map(|rate| rate.parse::<f64>()).transpose().map_err(|_| "rate is no number")?;
    if repeat == 0 || repeat > MAX_REPEAT || rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        return Err(format!("repeat has to be between 1 and {MAX_REPEAT}, rate more than 0"));
    }
    let name = name.strip_prefix("__HYPERVISOR_").unwrap_or(name);
    let call = CallSpec::named(name, arguments(node)?).map_err(|error| error.to_string())?;
    Ok(Step {
        call: with_sub_op(call),
        repeat,
        rate: rate.map(|per_second| Rate { per_second }),
        expect: Expectation::Anything,
        save: Vec::new(),
        force: false,
    })
}

/// The sub-op is a parameter like any other here; the tables need it to know the others.
fn with_sub_op(mut call: CallSpec) -> CallSpec {
    let command = ["cmd", "op"].iter().find_map(|name| call.args.get(name)).or_else(|| call.args.get(0));
    let number = command.and_then(|value| match value {
        Value::String(text) => crate::value::parse_number(text).and_then(|number| u64::try_from(number).ok()),
        other => other.as_u64(),
    });
    if call.hypercall().is_some_and(|hypercall| hypercall.sub_ops.is_some()) {
        call.sub_op_number = number;
    }
    call
}

fn arguments(call: Node<'_, '_>) -> Result<Value, String> {
    let parameters: Vec<Node<'_, '_>> =
        call.children().filter(|node| node.has_tag_name("parameter")).collect();
    if parameters.iter().all(|parameter| parameter.attribute("name").is_some()) {
        return members(&parameters, 0);
    }
    parameters.iter().map(|parameter| value(*parameter, 0)).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

fn members(nodes: &[Node<'_, '_>], depth: usize) -> Result<Value, String> {
    let mut map = Map::new();
    for node in nodes {
        let name = node.attribute("name").ok_or("a <member> needs a name")?;
        map.insert(name.to_owned(), value(*node, depth)?);
    }
    Ok(Value::Object(map))
}

fn value(node: Node<'_, '_>, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err(format!("structures are nested deeper than {MAX_DEPTH}"));
    }
    if let Some(inside) = node.children().find(|child| child.has_tag_name("struct")) {
        let nodes: Vec<Node<'_, '_>> =
            inside.children().filter(|child| child.has_tag_name("member")).collect();
        return members(&nodes, depth + 1);
    }
    let list =
        |text: &str| text.split(',').map(|one| Value::String(one.trim().to_owned())).collect::<Vec<_>>();
    if let Some(values) = node.attribute("values") {
        return Ok(json!({ "values": list(values) }));
    }
    if let Some(range) = node.attribute("range") {
        let (from, to) = range.split_once('-').ok_or_else(|| format!("range `{range}` is not like 1-10"))?;
        return Ok(json!({ "range": [from.trim(), to.trim()] }));
    }
    let text = node.attribute("value").or_else(|| node.text()).unwrap_or("0").trim();
    Ok(Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypovisor_abi::Width;

    fn load(text: &str) -> Result<Campaign, CampaignError> {
        parse(Path::new("a.xml"), text)
    }

    #[test]
    fn a_scenario_is_read() {
        let text = "<scenario name='xsa-26' rate='10'><hcall name='grant_table_op' repeat='2'>\
            <parameter name='cmd' value='8'/><parameter name='count' value='1'/>\
            <parameter name='uop'><struct><member name='version' values='2, 1'/></struct></parameter></hcall>\
            <hcall id='33'><parameter value='23'/><parameter range='1-3'/></hcall></scenario>";
        let campaign = load(text).unwrap();
        let plan = |step: usize, repetition| {
            campaign.steps[step].plan(Width::Bits64, 1, repetition, &Default::default()).unwrap()
        };
        assert_eq!((campaign.steps[0].repeat, campaign.steps[0].rate), (2, Some(Rate { per_second: 10.0 })));
        assert_eq!((plan(0, 0).registers[0], plan(0, 0).memory[0], plan(0, 1).memory[0]), (8, 2, 1));
        assert_eq!(plan(1, 2).registers[..2], [23, 3]);
    }

    #[test]
    fn what_is_no_scenario_is_refused() {
        let error = |text: &str| load(text).unwrap_err().to_string();
        assert!(error("<a/>").contains("a <scenario> is wanted"));
        assert!(error("<scenario/>").contains("<hcall> are wanted"));
        assert!(error("<!DOCTYPE a [<!ENTITY x 'y'>]><scenario/>").starts_with("a.xml: "));
        assert!(error("<scenario><hcall/></scenario>").contains("steps[0]"));
    }
}
