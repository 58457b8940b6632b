//! `memory_op` (Xen public/memory.h).

mod map;
mod reservation;
pub(super) mod resource;
pub(super) mod tools;

use super::prelude::*;

structure!(DOMAIN = "struct xen_memory_domain" { field("domid", Type::DOMID) });

pub(super) const CMD: Arg = arg("cmd", Type::U32);

/// Bits above these carry the extent a continuation goes on from (`MEMOP_EXTENT_SHIFT`).
const MEMOP_CMD_MASK: u64 = 0x3f;

macro_rules! memory {
    ($number:literal, $name:literal) => {
        op($number, $name, &[CMD])
    };
    ($number:literal, $name:literal, $direction:ident $structure:expr) => {
        op($number, $name, &[CMD, arg("arg", handle!($direction, Type::Struct(&$structure), Count::One))])
    };
}

pub(super) const MEMORY_OP: Hypercall = Hypercall {
    number: 12,
    name: "memory_op",
    args: &[CMD, arg("arg", Type::ADDRESS)],
    returns: Show::Dec,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Arg { index: 0, mask: MEMOP_CMD_MASK },
        ops: &[
            memory!(0, "XENMEM_increase_reservation", In reservation::TO_ALLOCATE).returning(Show::Dec),
            memory!(1, "XENMEM_decrease_reservation", In reservation::TO_FREE).returning(Show::Dec),
            memory!(2, "XENMEM_maximum_ram_page").returning(Show::Frame),
            memory!(3, "XENMEM_current_reservation", In DOMAIN).returning(Show::Dec),
            memory!(4, "XENMEM_maximum_reservation", In DOMAIN).returning(Show::Dec),
            memory!(5, "XENMEM_machphys_mfn_list", InOut map::MACHPHYS_MFN_LIST),
            memory!(6, "XENMEM_populate_physmap", In reservation::TO_POPULATE).returning(Show::Dec),
            memory!(7, "XENMEM_add_to_physmap", In map::ADD_TO_PHYSMAP),
            memory!(9, "XENMEM_memory_map", InOut map::MEMORY_MAP),
            memory!(10, "XENMEM_machine_memory_map", InOut map::MEMORY_MAP),
            memory!(11, "XENMEM_exchange", InOut reservation::EXCHANGE),
            memory!(12, "XENMEM_machphys_mapping", Out map::MACHPHYS_MAPPING),
            memory!(13, "XENMEM_set_memory_map", In map::FOREIGN_MEMORY_MAP),
            memory!(14, "XENMEM_maximum_gpfn", In DOMAIN).returning(Show::Frame),
            memory!(15, "XENMEM_remove_from_physmap", In map::REMOVE_FROM_PHYSMAP),
            memory!(16, "XENMEM_set_pod_target", InOut reservation::POD_TARGET),
            memory!(17, "XENMEM_get_pod_target", InOut reservation::POD_TARGET),
            memory!(18, "XENMEM_get_sharing_freed_pages").returning(Show::Dec),
            memory!(19, "XENMEM_get_sharing_shared_pages").returning(Show::Dec),
            memory!(20, "XENMEM_paging_op", In tools::PAGING_OP),
            memory!(21, "XENMEM_access_op", InOut tools::ACCESS_OP),
            memory!(22, "XENMEM_sharing_op", InOut tools::SHARING_OP).returning(Show::Dec),
            memory!(23, "XENMEM_add_to_physmap_batch", In map::ADD_TO_PHYSMAP_BATCH),
            memory!(24, "XENMEM_claim_pages", In reservation::CLAIM),
            memory!(25, "XENMEM_machphys_compat_mfn_list", InOut map::MACHPHYS_MFN_LIST),
            memory!(26, "XENMEM_get_vnumainfo", InOut resource::VNUMA_TOPOLOGY_INFO),
            memory!(27, "XENMEM_reserved_device_memory_map", InOut resource::RESERVED_DEVICE_MEMORY_MAP),
            memory!(28, "XENMEM_acquire_resource", InOut resource::ACQUIRE_RESOURCE),
        ],
    }),
};
