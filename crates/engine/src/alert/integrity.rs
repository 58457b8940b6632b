//! What stands for the rule in alerts about L1 itself.

use std::sync::Arc;

use hypovisor_integrity::{Finding, Item, Judgement};

use super::model::{Action, ActionTaken, AlertRule, Severity, Source};

/// `integrity/` and what was looked at; how bad it is depends on what is to be thought of it.
pub(super) fn rule(finding: &Finding, taken: ActionTaken) -> Arc<AlertRule> {
    let (suffix, severity) = match finding.judgement {
        Judgement::Tampering => ("", Severity::Critical),
        Judgement::LivePatch { .. } => ("/live_patch", Severity::Informational),
        Judgement::Unknown { .. } => ("/unknown", Severity::Low),
    };
    Arc::new(AlertRule {
        id: format!("integrity/{}{suffix}", finding.item.name()),
        title: title(finding.item).to_owned(),
        severity,
        source: Source::Integrity,
        references: Vec::new(),
        tags: vec!["integrity".to_owned()],
        action: if taken == ActionTaken::Paused { Action::Pause } else { Action::Alert },
    })
}

const fn title(item: Item) -> &'static str {
    match item {
        Item::Text => "The hypervisor's code was changed",
        Item::Constants => "The hypervisor's constants were changed",
        Item::Pointers => "Something that the hypervisor sets at boot only was changed",
        Item::ExceptionTable => "The hypervisor's exception table was changed",
        Item::PageTables => "The hypervisor's page tables allow what they must not",
        Item::Idt => "An interrupt gate of the hypervisor was changed",
        Item::Gdt => "A descriptor of the hypervisor was changed",
        Item::Tss => "The stack of an interrupt was changed",
        Item::Registers => "A system register of the hypervisor, or the code it leads to, was changed",
        Item::DebugRegisters => "A debug register stops the hypervisor's own code",
        Item::Domains => "The hypervisor's lists of domains are not true",
        Item::Vmrun => "A guest runs that belongs to no domain, or leaves to where it should not",
        Item::Hypercalls => "Hypercalls and what was seen of them do not agree",
        Item::Watch => "The watch of the hypervisor itself does not do what it is to",
    }
}
