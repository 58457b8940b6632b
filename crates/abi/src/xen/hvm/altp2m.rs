//! `HVMOP_altp2m`: alternate views of a guest's memory (Xen public/hvm/hvm_op.h).

use crate::xen::memory::tools::ACCESS;
use crate::xen::prelude::*;

const ACCESS_16: Type = Type::enumeration(Int::U16, &ACCESS);

structure!(DOMAIN_STATE = "struct xen_hvm_altp2m_domain_state" { field("state", Type::BOOL8) });
structure!(VCPU_ENABLE_NOTIFY = "struct xen_hvm_altp2m_vcpu_enable_notify" {
    field("vcpu_id", Type::VCPU),
    field("pad", Type::U32),
    field("gfn", Type::FRAME64),
});
structure!(VCPU_DISABLE_NOTIFY = "struct xen_hvm_altp2m_vcpu_disable_notify" {
    field("vcpu_id", Type::VCPU),
});
structure!(NEW_VIEW = "struct xen_hvm_altp2m_view" {
    field("view", Type::U16).out(),
    field("hvmmem_default_access", ACCESS_16),
});
structure!(VIEW = "struct xen_hvm_altp2m_view" {
    field("view", Type::U16),
    field("hvmmem_default_access", ACCESS_16),
});
structure!(SET_MEM_ACCESS = "struct xen_hvm_altp2m_mem_access" {
    field("view", Type::U16),
    field("access", ACCESS_16),
    field("pad", Type::U32),
    field("gfn", Type::FRAME64),
});
structure!(GET_MEM_ACCESS = "struct xen_hvm_altp2m_mem_access" {
    field("view", Type::U16),
    field("access", ACCESS_16).out(),
    field("pad", Type::U32),
    field("gfn", Type::FRAME64),
});
structure!(SET_MEM_ACCESS_MULTI = "struct xen_hvm_altp2m_set_mem_access_multi" {
    field("view", Type::U16),
    field("pad", Type::U16),
    field("nr", Type::U32),
    field("opaque", Type::HEX64).inout(),
    field("pfn_list", handle!(In, Type::FRAME64, Count::Field("nr"))),
    field("access_list", handle!(In, Type::enumeration(Int::U8, &ACCESS), Count::Field("nr"))),
});
structure!(CHANGE_GFN = "struct xen_hvm_altp2m_change_gfn" {
    field("view", Type::U16),
    field("pad1", Type::U16),
    field("pad2", Type::U32),
    field("old_gfn", Type::FRAME64),
    field("new_gfn", Type::FRAME64),
});
structure!(SET_SUPPRESS_VE = "struct xen_hvm_altp2m_suppress_ve" {
    field("view", Type::U16),
    field("suppress_ve", Type::BOOL8),
    field("pad1", Type::U8),
    field("pad2", Type::U32),
    field("gfn", Type::FRAME64),
});
structure!(GET_SUPPRESS_VE = "struct xen_hvm_altp2m_suppress_ve" {
    field("view", Type::U16),
    field("suppress_ve", Type::BOOL8).out(),
    field("pad1", Type::U8),
    field("pad2", Type::U32),
    field("gfn", Type::FRAME64),
});
structure!(SUPPRESS_VE_MULTI = "struct xen_hvm_altp2m_suppress_ve_multi" {
    field("view", Type::U16),
    field("suppress_ve", Type::BOOL8),
    field("pad1", Type::U8),
    field("first_error", Type::ERRNO32).inout(),
    field("first_gfn", Type::FRAME64).inout(),
    field("last_gfn", Type::FRAME64),
    field("first_error_gfn", Type::FRAME64).out(),
});
structure!(GET_VCPU_P2M_IDX = "struct xen_hvm_altp2m_get_vcpu_p2m_idx" {
    field("vcpu_id", Type::VCPU),
    field("altp2m_idx", Type::U16).out(),
});
structure!(SET_VISIBILITY = "struct xen_hvm_altp2m_set_visibility" {
    field("altp2m_idx", Type::U16),
    field("visible", Type::BOOL8),
    field("pad", Type::U8),
});

enumeration!(CMD = "HVMOP_altp2m_*" {
    1 => "HVMOP_altp2m_get_domain_state", 2 => "HVMOP_altp2m_set_domain_state",
    3 => "HVMOP_altp2m_vcpu_enable_notify", 4 => "HVMOP_altp2m_create_p2m", 5 => "HVMOP_altp2m_destroy_p2m",
    6 => "HVMOP_altp2m_switch_p2m", 7 => "HVMOP_altp2m_set_mem_access", 8 => "HVMOP_altp2m_change_gfn",
    9 => "HVMOP_altp2m_set_mem_access_multi", 10 => "HVMOP_altp2m_set_suppress_ve",
    11 => "HVMOP_altp2m_get_suppress_ve", 12 => "HVMOP_altp2m_get_mem_access",
    13 => "HVMOP_altp2m_vcpu_disable_notify", 14 => "HVMOP_altp2m_get_p2m_idx",
    15 => "HVMOP_altp2m_set_suppress_ve_multi", 16 => "HVMOP_altp2m_set_visibility",
});
// Before 4.10 mem_access was called set_mem_access; the layout is the same.
structure!(pub(super) ALTP2M_OP = "struct xen_hvm_altp2m_op" {
    field("version", Type::U32),
    field("cmd", Type::enumeration(Int::U32, &CMD)),
    field("domain", Type::DOMID),
    field("pad1", Type::U16),
    field("pad2", Type::U32),
    field("u", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 64, cases: &[
        case(&[1], "domain_state", Type::Struct(&DOMAIN_STATE)).out(),
        case(&[2], "domain_state", Type::Struct(&DOMAIN_STATE)),
        case(&[3], "enable_notify", Type::Struct(&VCPU_ENABLE_NOTIFY)),
        case(&[4], "view", Type::Struct(&NEW_VIEW)),
        case(&[5, 6], "view", Type::Struct(&VIEW)),
        case(&[7], "mem_access", Type::Struct(&SET_MEM_ACCESS)),
        case(&[12], "mem_access", Type::Struct(&GET_MEM_ACCESS)),
        case(&[8], "change_gfn", Type::Struct(&CHANGE_GFN)),
        case(&[9], "set_mem_access_multi", Type::Struct(&SET_MEM_ACCESS_MULTI)),
        case(&[10], "suppress_ve", Type::Struct(&SET_SUPPRESS_VE)),
        case(&[11], "suppress_ve", Type::Struct(&GET_SUPPRESS_VE)),
        case(&[15], "suppress_ve_multi", Type::Struct(&SUPPRESS_VE_MULTI)),
        case(&[13], "disable_notify", Type::Struct(&VCPU_DISABLE_NOTIFY)),
        case(&[14], "get_vcpu_p2m_idx", Type::Struct(&GET_VCPU_P2M_IDX)),
        case(&[16], "set_visibility", Type::Struct(&SET_VISIBILITY)),
    ] })),
});
