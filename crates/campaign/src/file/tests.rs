//! Campaign files that are right, and those that are not.

use super::*;
use proptest::prelude::*;

const GOOD: &str = "id: a\ntitle: t\nkind: benign\ntarget: pv\nsafe: it is\nsteps:\n  - call: xen_version/XENVER_version\n    repeat: 3\n    rate: 10/s\n    expect: {errno: [EPERM, EFAULT]}\n";

fn load(text: &str) -> Result<Campaign, CampaignError> {
    Campaign::from_text(Path::new("a.yaml"), text)
}

#[test]
fn a_campaign_is_read() {
    let campaign = load(GOOD).unwrap();
    let step = &campaign.steps[0];
    assert_eq!((campaign.kind, campaign.target, step.repeat), (Kind::Benign, Target::Pv, 3));
    assert_eq!(step.rate, Some(Rate { per_second: 10.0 }));
    assert_eq!(step.expect.mismatch(-14), None);
    assert_eq!(step.expect.mismatch(0).unwrap(), "EPERM or EFAULT was expected, not 0");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let error = |from: &str, to: &str| load(&GOOD.replace(from, to)).unwrap_err().to_string();
    assert!(
        error("XENVER_version", "XENVER_vresion").starts_with("a.yaml: steps[0]: call: xen_version has no")
    );
    assert!(error("EPERM", "ENONE").contains("Xen has no errno `ENONE`"));
    assert!(error("10/s", "fast").contains("`fast` is not like"));
    assert!(error("repeat: 3", "repeat: 0").contains("repeat"));
    let unknown = error("kind: benign", "kidn: benign");
    assert!(unknown.contains("kidn"), "{unknown}");
    assert!(error("id: a", "id: [").starts_with("a.yaml: "));
}

proptest! {
    #[test]
    fn any_text_is_a_campaign_or_an_error(text in ".{0,300}") {
        let _ = load(&text);
        let _ = Campaign::from_text(Path::new("a.xml"), &text);
    }
}
