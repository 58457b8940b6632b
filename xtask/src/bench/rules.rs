//! Rule sets to measure with.

use std::path::Path;

/// Rules in a set.
const RULES: usize = 500;
/// What they concern in turn: calls that a busy guest makes, another sub-op of the null hypercall among them.
const TARGETS: [&str; 8] = [
    "xen_version/XENVER_extraversion",
    "memory_op/XENMEM_exchange",
    "grant_table_op/GNTTABOP_map_grant_ref",
    "event_channel_op/EVTCHNOP_send",
    "mmu_update",
    "mmuext_op",
    "vcpu_op/VCPUOP_initialise",
    "physdev_op/PHYSDEVOP_map_pirq",
];

/// Writes 500 rules that deny into `dir`, none of which a benign guest matches. With `deny_null`, another one that denies
/// the null hypercall to every guest but dom0.
pub(crate) fn write(dir: &Path, deny_null: bool) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for index in 0..RULES {
        let condition = format!("domain == {} && cpl == 3 && vcpu < 4", 20_000 + index);
        write_rule(dir, &format!("BENCH-{index}"), TARGETS[index % TARGETS.len()], &condition)?;
    }
    if deny_null {
        write_rule(dir, "BENCH-null", "xen_version/XENVER_version", "domain != 0")?;
    }
    Ok(())
}

fn write_rule(dir: &Path, id: &str, on: &str, condition: &str) -> std::io::Result<()> {
    let text = format!(
        "id: {id}\ntitle: For the benchmark\ndescription: For the benchmark.\nblind_spots: Everything.\n\
         references: [none]\nseverity: informational\ntags: [bench]\non: {on}\nwhen: {condition}\naction: deny\n\
         errno: EPERM\n"
    );
    std::fs::write(dir.join(format!("{id}.yaml")), text)
}
