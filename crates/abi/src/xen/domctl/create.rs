//! What a new domain is to be like (Xen public/domctl.h).

use super::info::ARCH_CONFIG;
use crate::xen::prelude::*;

flag_set!(CDF = "XEN_DOMCTL_CDF_*" {
    0x1 => "XEN_DOMCTL_CDF_hvm", 0x2 => "XEN_DOMCTL_CDF_hap", 0x4 => "XEN_DOMCTL_CDF_s3_integrity",
    0x8 => "XEN_DOMCTL_CDF_oos_off", 0x10 => "XEN_DOMCTL_CDF_xs_domain", 0x20 => "XEN_DOMCTL_CDF_iommu",
    0x40 => "XEN_DOMCTL_CDF_nested_virt", 0x80 => "XEN_DOMCTL_CDF_vpmu",
});
flag_set!(IOMMU = "XEN_DOMCTL_IOMMU_*" { 1 => "XEN_DOMCTL_IOMMU_no_sharept" });
flag_set!(GRANT = "how grants work" {} parts { 0xf => "version" });
const ALTP2M: FlagSet = FlagSet {
    name: "XEN_DOMCTL_ALTP2M_*",
    bits: &[
        (3, 1, "XEN_DOMCTL_ALTP2M_mixed"),
        (3, 2, "XEN_DOMCTL_ALTP2M_external"),
        (3, 3, "XEN_DOMCTL_ALTP2M_limited"),
    ],
    parts: &[],
};

const SSIDREF: Field = field("ssidref", Type::U32);
const HANDLE: Field = field("handle", Type::Bytes(16));
const FLAGS: Field = field("flags", Type::flags(Int::U32, &CDF));
const IOMMU_OPTS: Field = field("iommu_opts", Type::flags(Int::U32, &IOMMU));
const MAX_VCPUS: Field = field("max_vcpus", Type::U32);
const MAX_EVTCHN_PORT: Field = field("max_evtchn_port", Type::U32);
const MAX_GRANT_FRAMES: Field = field("max_grant_frames", Type::S32);
const MAX_MAPTRACK_FRAMES: Field = field("max_maptrack_frames", Type::S32);
const GRANT_OPTS: Field = field("grant_opts", Type::flags(Int::U32, &GRANT));
const VMTRACE_SIZE: Field = field("vmtrace_size", Type::U32);
const CPUPOOL_ID: Field = field("cpupool_id", Type::U32);
const ARCH: Field = field("arch", Type::Struct(&ARCH_CONFIG));

structure!(WITH_ALTP2M = "struct xen_domctl_createdomain" {
    SSIDREF,
    HANDLE,
    FLAGS,
    IOMMU_OPTS,
    MAX_VCPUS,
    MAX_EVTCHN_PORT,
    MAX_GRANT_FRAMES,
    MAX_MAPTRACK_FRAMES,
    GRANT_OPTS,
    field("altp2m_opts", Type::flags(Int::U32, &ALTP2M)),
    VMTRACE_SIZE,
    CPUPOOL_ID,
    ARCH,
});
structure!(WITHOUT_ALTP2M = "struct xen_domctl_createdomain" {
    SSIDREF,
    HANDLE,
    FLAGS,
    IOMMU_OPTS,
    MAX_VCPUS,
    MAX_EVTCHN_PORT,
    MAX_GRANT_FRAMES,
    MAX_MAPTRACK_FRAMES,
    GRANT_OPTS,
    VMTRACE_SIZE,
    CPUPOOL_ID,
    ARCH,
});

/// `altp2m_opts` came with interface version 0x17.
pub(super) const CREATEDOMAIN: Type = Type::Union(&Union {
    tag: Tag::Field("interface_version"),
    min_size: 0,
    cases: &[
        case(&[0x15, 0x16], "", Type::Struct(&WITHOUT_ALTP2M)),
        case(&[], "", Type::Struct(&WITH_ALTP2M)),
    ],
});
