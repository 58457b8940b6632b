//! Campaign files made of anything, and calls of every kind there and back: encoded here, decoded by the ABI's tables.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hypovisor_abi::capture::{Phase, Registers, Segments, capture};
use hypovisor_abi::decode::{Call, Group, Missing, Sink, decode};
use hypovisor_abi::fuzzing::Copier;
use hypovisor_abi::xen::XEN;
use hypovisor_abi::{
    Arg, Count, Direction, Handle, Hypercall, Scalar, Struct, SubOp, SubOpFrom, Type, Width,
};
use hypovisor_campaign::fuzzing::{Form, campaign};
use hypovisor_campaign::{CallSpec, Campaign, Context, Place, Plan, Saved, hazard};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const FORMS: [(Form, &str); 2] = [(Form::Yaml, "campaign_yaml"), (Form::Xml, "campaign_xml")];

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(corpus(target)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// A seed whose name begins with `good` is a campaign that can be made, any other is none.
#[test]
fn seeds_are_campaigns_or_refused() {
    for (form, target) in FORMS {
        for (path, seed) in seeds(target) {
            let good = path.file_name().unwrap().to_string_lossy().starts_with("good");
            assert_eq!(campaign(&seed, form).is_some_and(|calls| calls > 0), good, "{}", path.display());
        }
    }
}

#[test]
fn every_shipped_campaign_can_be_laid_out() {
    let attacks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../attacks");
    let campaigns = Campaign::load_all(&attacks).unwrap();
    assert!(campaigns.len() > 100, "{} campaigns", campaigns.len());
    for campaign in &campaigns {
        let names = campaign.steps.iter().flat_map(|step| &step.save);
        let saved: Saved = names.map(|(name, _)| (name.clone(), 1)).collect();
        for step in &campaign.steps {
            step.plan(Width::Bits64, campaign.seed, 0, &saved)
                .unwrap_or_else(|error| panic!("{}: {error}", campaign.id));
            assert!(step.force || hazard(&step.call).is_none(), "{} cannot be undone", campaign.id);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_campaign_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for (form, _) in FORMS {
            let _ = campaign(&bytes, form);
        }
    }

    #[test]
    fn a_damaged_campaign_keeps_its_bounds_or_is_refused(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        for (form, target) in FORMS {
            let mut seeds = seeds(target);
            let (_, mut seed) = seeds.swap_remove(which.index(seeds.len()));
            for (at, byte) in &damage {
                if !seed.is_empty() {
                    let at = at.index(seed.len());
                    seed[at] = *byte;
                }
            }
            let _ = campaign(&seed, form);
            seed.truncate(cut.index(seed.len() + 1));
            let _ = campaign(&seed, form);
        }
    }

    #[test]
    fn every_call_is_decoded_as_it_was_asked_for(seed in any::<u64>()) {
        let mut compared = 0;
        for hypercall in XEN.calls.iter().flatten() {
            for sub_op in hypercall.sub_ops.map_or(&[][..], |ops| ops.ops) {
                compared += there_and_back(hypercall, Some(sub_op), seed);
            }
            if hypercall.sub_ops.is_none() {
                compared += there_and_back(hypercall, None, seed);
            }
        }
        prop_assert!(compared > 600, "only {compared} values were compared");
    }
}

/// Where the memory of a made-up guest begins.
const BASE: u64 = 0x7f00_0000_0000;

/// How many values were asked for, all of which are decoded again.
fn there_and_back(hypercall: &'static Hypercall, sub_op: Option<&'static SubOp>, seed: u64) -> usize {
    let name = sub_op.map_or(hypercall.name.to_owned(), |op| format!("{}/{}", hypercall.name, op.name));
    let mut asked = Asked { random: seed, path: Vec::new(), values: BTreeMap::new() };
    let args = asked.arguments(hypercall, sub_op.map_or(hypercall.args, |op| op.args));
    let spec = CallSpec::named(&name, args.clone()).unwrap();
    let plan = match spec.encode(Width::Bits64, &Context::default()) {
        Ok(plan) => plan,
        Err(error) if error.message.contains("memory is larger") => return 0,
        Err(error) => panic!("{name}: {error}"),
    };
    let found = decoded(&plan);
    for (path, wanted) in &asked.values {
        assert_eq!(found.values.get(path), Some(wanted), "{name}: {path}, of {args}");
    }
    asked.values.len()
}

/// The call as a sensor captures it at entry, decoded.
fn decoded(plan: &Plan) -> Found {
    let (mut memory, mut args) = (plan.memory.clone(), plan.registers);
    for relocation in &plan.relocations {
        let address = BASE + u64::from(relocation.target);
        match relocation.place {
            Place::Register(index) => args[usize::from(index)] = address,
            Place::Memory(at) => memory[at as usize..][..8].copy_from_slice(&address.to_le_bytes()),
        }
    }
    let registers = Registers { number: plan.number, args, width: Width::Bits64 };
    let mut copier =
        Copier::new(|gva: u64| memory.get(usize::try_from(gva.checked_sub(BASE)?).ok()?).copied());
    capture(&XEN, &registers, Phase::Entry, &mut copier);
    let call = Call { registers, entry: Segments(&copier.out), exit: Segments(&[]) };
    let mut found = Found::default();
    decode(&XEN, &call, &mut found);
    found
}

/// What is asked for: random values for what a guest gives by name, but for counts and sub-op numbers, which come by
/// themselves, and for members of unions, which a random tag would not select.
struct Asked {
    random: u64,
    path: Vec<&'static str>,
    values: BTreeMap<String, u64>,
}

impl Asked {
    /// Steele, Lea and Flood's SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn arguments(&mut self, hypercall: &Hypercall, args: &'static [Arg]) -> Value {
        let from = hypercall.sub_ops.map(|ops| ops.from);
        let mut map = Map::new();
        for (index, arg) in (0..).zip(args) {
            let is_sub_op = matches!(from, Some(SubOpFrom::Arg { index: at, .. }) if at == index);
            let is_count = args.iter().any(|other| counts_by_register(&other.ty, index));
            let is_buffers = matches!(from, Some(SubOpFrom::FirstBuffer { .. }));
            if arg.only != Some(Width::Bits32) && !is_sub_op && !is_count && !is_buffers {
                self.named(arg.name, &arg.ty, &mut map);
            }
        }
        Value::Object(map)
    }

    fn named(&mut self, name: &'static str, ty: &'static Type, map: &mut Map<String, Value>) {
        self.path.push(name);
        if let Some(value) = self.value(ty) {
            map.insert(name.to_owned(), value);
        }
        self.path.pop();
    }

    fn value(&mut self, ty: &'static Type) -> Option<Value> {
        match ty.for_width(Width::Bits64) {
            Type::Int(scalar) => {
                let bits = 8 * scalar.int.bytes(Width::Bits64);
                let value = self.next() >> (64 - bits);
                self.values.insert(self.path.join("."), value);
                Some(json!(value))
            }
            Type::Struct(structure) => Some(self.structure(structure)),
            Type::Handle(handle) => self.handle(handle),
            _ => None,
        }
    }

    fn handle(&mut self, handle: &'static Handle) -> Option<Value> {
        let followed = matches!(handle.count, Count::One | Count::Arg { .. } | Count::Field(_));
        let plain = matches!(handle.to.for_width(Width::Bits64), Type::Int(_) | Type::Struct(_));
        if !followed || !plain || handle.direction == Direction::Out {
            return None;
        }
        let value = self.value(handle.to)?;
        // A number by itself would be the pointer.
        Some(if value.is_object() && matches!(handle.count, Count::One) { value } else { json!([value]) })
    }

    fn structure(&mut self, structure: &'static Struct) -> Value {
        let mut map = Map::new();
        for field in structure.fields {
            let is_count = structure.fields.iter().any(|other| counts_by_field(&other.ty, field.name));
            // The sub-op's number, in calls that have it in memory.
            let is_command = self.path.len() == 1 && field.name == "cmd";
            // Padding is not shown.
            let is_given = field.direction != Direction::Out && !field.name.contains("pad");
            if !field.name.is_empty() && !is_count && !is_command && is_given {
                self.named(field.name, &field.ty, &mut map);
            }
        }
        Value::Object(map)
    }
}

fn counts_by_register(ty: &Type, index: u8) -> bool {
    let Type::Handle(handle) = ty else { return false };
    matches!(handle.count, Count::Arg { index: at, .. } | Count::ArgPer { index: at, .. } if at == index)
}

fn counts_by_field(ty: &'static Type, name: &str) -> bool {
    let (Type::Handle(handle) | Type::Tail(handle)) = ty.for_width(Width::Bits64) else { return false };
    match handle.count {
        Count::Field(field)
        | Count::FieldBits(field)
        | Count::FieldTimes(field, _)
        | Count::FieldPer(field, _) => field == name,
        Count::Product(first, second) | Count::Least(first, second) | Count::Span(first, second) => {
            [first, second].contains(&name)
        }
        _ => false,
    }
}

/// Integers by the names on the way to them; elements of lists have none.
#[derive(Default)]
struct Found {
    path: Vec<&'static str>,
    values: BTreeMap<String, u64>,
}

impl Sink for Found {
    fn open(&mut self, name: &'static str, _: Group) {
        self.path.push(name);
    }

    fn close(&mut self, _: Group) {
        self.path.pop();
    }

    fn scalar(&mut self, name: &'static str, _: &Scalar, value: hypovisor_abi::decode::Value) {
        let names = self.path.iter().copied().chain([name]).filter(|name| !name.is_empty());
        if let Some(before) = value.before {
            self.values.insert(names.collect::<Vec<_>>().join("."), before);
        }
    }

    fn sub_op(&mut self, _: &'static str, _: u64, _: Option<&'static SubOp>) {}
    fn text(&mut self, _: &'static str, _: &[u8]) {}
    fn bytes(&mut self, _: &'static str, _: &[u8], _: u64) {}
    fn pointer(&mut self, _: &'static str, _: u64, _: Missing) {}
    fn elided(&mut self, _: u64) {}
}
