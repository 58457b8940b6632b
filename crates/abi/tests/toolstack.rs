//! Calls of a toolstack, from made-up memory to text: which way things travel, and which member is live.

use hypovisor_abi::Width;
use hypovisor_abi::capture::{Phase, Registers, Segments, capture};
use hypovisor_abi::decode::{Call, identify};
use hypovisor_abi::fuzzing::{Copier, Rendered};
use hypovisor_abi::xen::XEN;

/// Memory in pieces.
#[derive(Clone, Default)]
struct Guest(Vec<(u64, Vec<u8>)>);

impl Guest {
    /// Later pieces lie on top of earlier ones.
    fn with(&self, gva: u64, bytes: impl AsRef<[u8]>) -> Self {
        let mut guest = self.clone();
        guest.0.insert(0, (gva, bytes.as_ref().to_vec()));
        guest
    }

    fn words(&self, gva: u64, words: &[u32]) -> Self {
        self.with(gva, words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())
    }

    fn copy(&self, registers: &Registers, phase: Phase) -> Vec<u8> {
        let byte = |gva: u64| {
            self.0.iter().find_map(|(start, bytes)| bytes.get(gva.checked_sub(*start)? as usize).copied())
        };
        let mut copier = Copier::new(byte);
        capture(&XEN, registers, phase, &mut copier);
        copier.out
    }

    /// Text of the call when it has made `after` of the memory.
    fn text(&self, number: u64, args: &[u64], after: &Self) -> String {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        let registers = Registers { number, args: all, width: Width::Bits64 };
        let (entry, exit) = (self.copy(&registers, Phase::Entry), after.copy(&registers, Phase::Exit));
        let call = Call { registers, entry: Segments(&entry), exit: Segments(&exit) };
        assert!(identify(&XEN, &call).sub_op.is_some(), "no sub-op");
        Rendered::of(&XEN, &call).line
    }
}

const SYSCTL: u64 = 35;
const DOMCTL: u64 = 36;
const DM_OP: u64 = 41;
const PLATFORM_OP: u64 = 7;

/// A page of zeros, with these words in front: a command, a version, and the union.
fn command(words: &[u32]) -> Guest {
    Guest::default().with(0x1000, [0; 4096]).words(0x1000, words)
}

#[test]
fn a_list_of_domains_is_as_long_as_xen_says() {
    let before = command(&[6, 0x15, 0, 8, 0x5000, 0, 0xdead]);
    let mut info = vec![0; 2 * 112];
    info[112] = 3;
    info[116] = 0x22;
    let after = before.words(0x1018, &[2]).with(0x5000, info);
    let text = before.text(SYSCTL, &[0x1000], &after);
    assert!(text.starts_with(
        "sysctl(u_sysctl={cmd=XEN_SYSCTL_getdomaininfolist, interface_version=0x15, \
         getdomaininfolist={first_domain=0, max_domains=8, buffer=[{domain=0, flags=0, tot_pages=0,"
    ));
    assert!(text.contains("{domain=3, flags=XEN_DOMINF_hvm_guest|XEN_DOMINF_running,"), "{text}");
    assert!(text.ends_with("], num_domains=2}})"), "{text}");
}

#[test]
fn a_union_can_have_one_member_going_in_and_another_coming_out() {
    let before = command(&[21, 0x15, 2, 0, 5, 0]);
    let after = before.words(0x1010, &[30720, 0]);
    let text = before.text(SYSCTL, &[0x1000], &after);
    assert!(text.ends_with("flags=0x0, l3_cache={cpu=5, rsvd=0}, data=30720}})"), "{text}");
    let running = before.text(SYSCTL, &[0x1000], &Guest::default());
    assert!(running.ends_with("flags=0x0, l3_cache={cpu=5, rsvd=0}}})"), "{running}");
}

#[test]
fn the_driver_says_what_a_governor_has() {
    let before = command(&[12, 0x15, 0x11, 0]);
    let at_driver = 0x1010 + 16 + 3 * 8;
    let governor = before.with(at_driver, b"acpi-cpufreq").with(at_driver + 16 + 12 + 4, b"ondemand");
    let text = before.text(SYSCTL, &[0x1000], &governor.words(0x1010 + 96, &[1, 2, 3, 4]));
    assert!(text.contains("scaling_driver=\"acpi-cpufreq\""), "{text}");
    assert!(text.contains("scaling_governor=\"ondemand\""), "{text}");
    assert!(text.contains("ondemand={sampling_rate_max=1, sampling_rate_min=2"), "{text}");
    let text = before.text(SYSCTL, &[0x1000], &before.with(at_driver, b"hwp"));
    assert!(text.contains("scaling_driver=\"hwp\"") && text.contains("cppc_para={features=0"), "{text}");
}

#[test]
fn a_live_patch_is_named_and_its_payload_counted() {
    let words = [27, 0x15, 0, 0, 0x5000, 0, 4, 0, 6, 0, 0x6000, 0];
    let before = command(&words).with(0x5000, b"fix\0").with(0x6000, b"\x7fELF12");
    let text = before.text(SYSCTL, &[0x1000], &before);
    assert!(text.ends_with(
        "livepatch={cmd=XEN_SYSCTL_LIVEPATCH_UPLOAD, flags=0, upload={name={name=\"fix\", size=4}, \
         size=6, payload=7f454c463132}}})"
    ));
}

#[test]
fn offlined_pages_have_a_status_each() {
    let before = command(&[14, 0x15, 3, 0x100, 0x101, 0, 0x5000, 0]);
    let after = before.words(0x5000, &[0x7ff2_0004, 0x2]);
    let text = before.text(SYSCTL, &[0x1000], &after);
    assert!(
        text.ends_with(
            "page_offline={cmd=sysctl_query_page_offline, start=0x100, end=0x101, \
             status=[PG_OFFLINE_STATUS_ONLINE|owner:32754, PG_OFFLINE_STATUS_OFFLINED]}})"
        ),
        "{text}"
    );
}

#[test]
fn resource_entries_are_command_and_error() {
    let before = command(&[61, 0x0300_0001, 1, 2, 0x5000, 0]).words(0x5000, &[0, 0, 0xc8d, 0, 0, 0]);
    let after = before.words(0x5000, &[0xffff_fff3, 0, 0xc8d, 0, 0x99, 0]);
    let text = before.text(PLATFORM_OP, &[0x1000], &after);
    assert!(
        text.ends_with(
            "resource_op={nr_entries=1, cpu=2, entries=[{cmd=XEN_RESOURCE_OP_MSR_READ, ret=-EACCES, \
             rsvd=0, idx=0xc8d, val=0x0->0x99}]}})"
        ),
        "{text}"
    );
}

#[test]
fn a_variable_of_the_firmware_has_a_wide_name() {
    let words = [49, 0x0300_0001, 6, 0, 0, 0, 0x5000, 0, 4, 0, 0x6000, 0, 0x8be4_df61, 0xbeef_0001];
    let before = command(&words).with(0x5000, b"B\0o\0o\0t\0\0\0");
    let after = before.words(0x100c, &[7]).with(0x1020, [2]).with(0x6000, [0xaa, 0xbb]);
    let text = before.text(PLATFORM_OP, &[0x1000], &after);
    assert!(
        text.contains("get_variable={name=\"Boot\", size=4->2, data=aabb, vendor_guid={data1=0x8be4df61,")
    );
    assert!(text.contains("misc=0->XEN_EFI_VARIABLE_NON_VOLATILE|"), "{text}");
    assert!(text.contains(", status=0x0, "), "{text}");
}

#[test]
fn processors_have_states_with_dependencies() {
    // id, type, count, flags, states; a state's struct is 48 bytes.
    let before = command(&[54, 0x0300_0001, 1, 0, 1, 0x4, 0x5000, 0])
        .words(0x5000, &[0x7f, 1, 2, 1, 0xb0, 0, 2, 41, 200, 1, 0x6000, 0])
        .words(0x6000, &[0, 0xfc, 4]);
    let text = before.text(PLATFORM_OP, &[0x1000], &before);
    assert!(text.contains("set_pminfo={id=1, type=XEN_PM_CX, power={count=1, flags=has_cst, states=[{reg={"));
    assert!(text.contains("dp=[{domain=0, coord_type=0xfc, num=4}]}]}}})"), "{text}");
}

#[test]
fn the_flags_of_a_fetch_mean_another_thing_on_the_way_back() {
    let before = command(&[1, 0x01ec_c003, 1, 0, 0, 0, 0, 0]);
    let after = before.words(0x1008, &[2]);
    let text = before.text(48, &[0x1000], &after);
    assert!(
        text.ends_with("mc_fetch={flags=XEN_MC_NONURGENT, result=XEN_MC_NODATA, fetch_id=0, data=NULL}})"),
        "{text}"
    );
}

#[test]
fn a_device_has_a_node_if_its_flags_say_so() {
    let with_node = Guest::default().words(0x1000, &[0x0010_0000, 4, 0, 1]);
    let text = with_node.text(33, &[25, 0x1000], &Guest::default());
    assert!(text.ends_with("flags=XEN_PCI_DEV_PXM, physfn={bus=0x0, devfn=0x0}, optarr=[1]})"), "{text}");
    let without = Guest::default().words(0x1000, &[0x0010_0000, 0, 0, 1]);
    let text = without.text(33, &[25, 0x1000], &Guest::default());
    assert!(text.ends_with("flags=0, physfn={bus=0x0, devfn=0x0}})"), "{text}");
}

#[test]
fn messages_are_sent_in_pieces() {
    let guest = Guest::default()
        .words(0x1000, &[7, 1, 8, 2])
        .words(0x2000, &[0x3000, 0, 2, 0, 0x4000, 0, 1, 0])
        .with(0x3000, [1, 2])
        .with(0x4000, [3]);
    assert_eq!(
        guest.text(39, &[3, 0x1000, 0x2000, 2, 0x10], &guest),
        "argo_op(cmd=XEN_ARGO_OP_sendv, send_addr={src={aport=7, domain_id=1}, dst={aport=8, domain_id=2}}, \
         iovs=[{iov_hnd=0102, iov_len=2}, {iov_hnd=03, iov_len=1}], niov=2, message_type=0x10)"
    );
    let before = Guest::default().words(0x1000, &[1, 0, 7, 1, 0xdead_beef, 64, 0xdead_beef]);
    let after = before.words(0x1010, &[0x1]).words(0x1018, &[4096]);
    let text = before.text(39, &[4, 0x1000], &after);
    assert!(
        text.contains(
            "ring_data={nent=1, data=[{ring={aport=7, domain_id=1}, flags=XEN_ARGO_RING_EXISTS, \
             space_required=64, max_message_size=4096}]}"
        ),
        "{text}"
    );
}

#[test]
fn a_parameter_is_read_with_its_contents() {
    let before = Guest::default().with(0x1000, b"/params/ept\0").with(0x2000, [0xee; 64]);
    let after = before.words(0x2000, &[0x2, 5, 0]).with(0x200c, b"pml=1");
    let text = before.text(42, &[1, 0x1000, 12, 0x2000, 64], &after);
    assert!(
        text.ends_with(
            "path=\"/params/ept\", path_len=12, data={type=XEN_HYPFS_TYPE_STRING, \
             encoding=XEN_HYPFS_ENC_PLAIN, content_len=5, max_write_len=0, content=706d6c3d31}, data_len=64)"
        ),
        "{text}"
    );
}

#[test]
fn a_kernel_to_start_is_in_segments() {
    let guest = Guest::default()
        .words(0x1000, &[0x003e_0001, 1, 0x2000, 0, 0x10_0000, 0])
        .words(0x2000, &[0x3000, 0, 2, 0, 0x20_0000, 0, 4096, 0])
        .with(0x3000, [0x90, 0xc3]);
    assert_eq!(
        guest.text(37, &[4, 0x1000], &guest),
        "kexec_op(cmd=KEXEC_CMD_kexec_load, args={type=KEXEC_TYPE_CRASH, arch=x86_64, nr_segments=1, \
         segments=[{buf=90c3, buf_size=2, dest_maddr=0x200000, dest_size=4096}], entry_maddr=0x100000})"
    );
}

#[test]
fn modes_and_features_share_a_word() {
    let before = Guest::default().words(0x1000, &[0, 0, 0xff, 0, 0, 0]);
    let after = before.words(0x1000, &[0, 1, 1, 0]);
    assert_eq!(
        before.text(40, &[0, 0x1000], &after),
        "xenpmu_op(op=XENPMU_mode_get, arg={version={maj=0, min=0->1}, \
         val=XENPMU_MODE_SELF|XENPMU_MODE_HV|XENPMU_MODE_ALL|0xf8->XENPMU_MODE_SELF, vcpu=0})"
    );
}

#[test]
fn a_parameters_value_is_what_its_index_says() {
    let set = Guest::default().words(0x1000, &[0x7ff0, 0, 0xf3, 2 << 24]);
    assert_eq!(
        set.text(34, &[0, 0x1000], &set),
        "hvm_op(op=HVMOP_set_param, arg={domid=DOMID_SELF, index=HVM_PARAM_CALLBACK_IRQ, value=vector|243})"
    );
    let before = Guest::default().words(0x1000, &[5, 2, 0xdead, 0]);
    let after = before.words(0x1000, &[5, 2, 3, 0]);
    assert_eq!(
        before.text(34, &[1, 0x1000], &after),
        "hvm_op(op=HVMOP_get_param, arg={domid=5, index=HVM_PARAM_STORE_EVTCHN, value=3})"
    );
}

#[test]
fn a_device_models_op_stands_in_its_first_buffer() {
    let before = Guest::default()
        .words(0x1000, &[0x2000, 0, 32, 0])
        .words(0x2000, &[3, 0, 1, 2, 0x0001_00fa, 0, 0x0001_00fa, 0]);
    let text = before.text(41, &[5, 1, 0x1000], &before);
    assert!(
        text.ends_with(
            "op={op=XEN_DMOP_map_io_range_to_ioreq_server, map_io_range_to_ioreq_server={id=1, \
             type=XEN_DMOP_IO_RANGE_PCI, start=segment:1|device:31|function:2, \
             end=segment:1|device:31|function:2}})"
        ),
        "{text}"
    );
}

#[test]
fn a_security_context_is_read_as_far_as_it_goes() {
    let before = Guest::default().words(0x1000, &[5, 1, 7, 64, 0x2000, 0]).with(0x2000, [0xee; 64]);
    let after = before.words(0x1000, &[5, 1, 7, 4, 0x2000, 0]).with(0x2000, b"a:b:");
    assert_eq!(
        before.text(27, &[0x1000], &after),
        "xsm_op(u_flask_op={cmd=FLASK_SID_TO_CONTEXT, interface_version=1, \
         sid_context={sid=7, size=64->4, context=\"a:b:\"}})"
    );
}

/// A page of zeros, with a command, a version and a domain in front of the union.
fn domctl(command: u32, version: u32, domain: u32, union: &[u32]) -> Guest {
    Guest::default()
        .with(0x1000, [0; 4096])
        .words(0x1000, &[command, version, domain, 0])
        .words(0x1010, union)
}

#[test]
fn a_new_domain_gets_its_id() {
    let config = [0, 1, 2, 3, 4, 0x27, 0, 2, 1023, 64, u32::MAX, 2, 1, 0, 0, 0x1ff, 0];
    let before = domctl(1, 0x17, 0, &config);
    let after = before.words(0x1008, &[7]);
    let text = before.text(DOMCTL, &[0x1000], &after);
    assert_eq!(
        text,
        "domctl(u_domctl={cmd=XEN_DOMCTL_createdomain, interface_version=0x17, domain=0->7, \
         createdomain={ssidref=0, handle=01000000020000000300000004000000, \
         flags=XEN_DOMCTL_CDF_hvm|XEN_DOMCTL_CDF_hap|XEN_DOMCTL_CDF_s3_integrity|XEN_DOMCTL_CDF_iommu, \
         iommu_opts=0, max_vcpus=2, max_evtchn_port=1023, max_grant_frames=64, max_maptrack_frames=-1, \
         grant_opts=version:2, altp2m_opts=XEN_DOMCTL_ALTP2M_mixed, vmtrace_size=0, cpupool_id=0, \
         arch={emulation_flags=XEN_X86_EMU_LAPIC|XEN_X86_EMU_HPET|XEN_X86_EMU_PM|XEN_X86_EMU_RTC|\
         XEN_X86_EMU_IOAPIC|XEN_X86_EMU_PIC|XEN_X86_EMU_VGA|XEN_X86_EMU_IOMMU|XEN_X86_EMU_PIT, \
         misc_flags=0}}})"
    );
    let running = before.text(DOMCTL, &[0x1000], &Guest::default());
    assert!(running.contains("domain=0, createdomain={ssidref=0,"), "{running}");
}

#[test]
fn an_older_toolstack_creates_domains_without_altp2m() {
    let config = [0, 1, 2, 3, 4, 0x1, 0, 2, 1023, 64, 1024, 1, 4096, 5, 1, 0];
    let text = domctl(1, 0x15, 0, &config).text(DOMCTL, &[0x1000], &domctl(1, 0x15, 3, &config));
    assert!(
        text.ends_with(
            "grant_opts=version:1, vmtrace_size=4096, cpupool_id=5, \
             arch={emulation_flags=XEN_X86_EMU_LAPIC, misc_flags=0}}})"
        ),
        "{text}"
    );
}

#[test]
fn what_a_domain_is_like_is_not_known_before_xen_says() {
    let before = domctl(5, 0x17, 1, &[0xdead; 28]);
    let running = before.text(DOMCTL, &[0x1000], &Guest::default());
    assert_eq!(running, "domctl(u_domctl={cmd=XEN_DOMCTL_getdomaininfo, interface_version=0x17, domain=1})");
    let after = domctl(5, 0x17, 2, &[2, 0x0002_0004, 1024, 0]);
    let text = before.text(DOMCTL, &[0x1000], &after);
    assert!(
        text.contains(
            "domain=1->2, getdomaininfo={domain=2, flags=XEN_DOMINF_shutdown|shutdown_code:2, tot_pages=1024,"
        ),
        "{text}"
    );
}

#[test]
fn one_struct_sets_and_gets() {
    let set = domctl(60, 0x17, 1, &[2, 1000, 3]);
    let text = set.text(DOMCTL, &[0x1000], &Guest::default());
    assert!(text.contains("tsc_info={tsc_mode=XEN_CPUID_TSC_MODE_NEVER_EMULATE, gtsc_khz=1000,"), "{text}");
    let get = domctl(59, 0x17, 1, &[0xdead; 6]);
    assert!(get.text(DOMCTL, &[0x1000], &Guest::default()).ends_with("domain=1})"));
    let text = get.text(DOMCTL, &[0x1000], &domctl(59, 0x17, 1, &[0, 1000, 3]));
    assert!(text.contains("tsc_info={tsc_mode=XEN_CPUID_TSC_MODE_DEFAULT, gtsc_khz=1000,"), "{text}");
}

#[test]
fn buffers_of_pairs_travel_one_way_each() {
    let set = domctl(34, 0x17, 1, &[4, 0, 0x5000, 0]).with(0x5000, [1, 2, 3, 4]);
    let text = set.text(DOMCTL, &[0x1000], &set);
    assert!(text.ends_with("hvmcontext={size=4, buffer=01020304}})"), "{text}");
    let get = domctl(33, 0x17, 1, &[8, 0, 0x5000, 0]).with(0x5000, [0xee; 8]);
    let text = get.text(DOMCTL, &[0x1000], &get.words(0x1010, &[2]).with(0x5000, [5, 6]));
    assert!(text.ends_with("hvmcontext={size=8->2, buffer=0506}})"), "{text}");
}

#[test]
fn a_schedulers_parameters_are_those_of_its_kind() {
    let put = domctl(16, 0x17, 1, &[6, 0, 0x0032_0100]);
    let text = put.text(DOMCTL, &[0x1000], &put);
    assert!(
        text.ends_with(
            "scheduler_op={sched_id=XEN_SCHEDULER_CREDIT2, cmd=XEN_DOMCTL_SCHEDOP_putinfo, \
             credit2={weight=256, cap=50}}})"
        ),
        "{text}"
    );
    let get = domctl(16, 0x17, 1, &[5, 1, 0xdead]);
    let text = get.text(DOMCTL, &[0x1000], &domctl(16, 0x17, 1, &[5, 1, 0x100]));
    assert!(text.ends_with("cmd=XEN_DOMCTL_SCHEDOP_getinfo, credit={weight=256, cap=0}}})"), "{text}");
    let each = domctl(16, 0x17, 1, &[8, 3, 0x5000, 0, 1, 0]).words(0x5000, &[0, 0, 0, 1]);
    let text = each.text(DOMCTL, &[0x1000], &each.words(0x5000, &[10000, 4000, 1]));
    assert!(
        text.ends_with(
            "v={vcpus=[{rtds={period=10000, budget=4000, flags=XEN_DOMCTL_SCHEDRT_extra}, vcpuid=1}], \
             nr_vcpus=1}}})"
        ),
        "{text}"
    );
}

#[test]
fn dirty_pages_are_bits() {
    let words = [11, 1, 0, 0, 0x5000, 0, 12, 0, 0, 0];
    let before = domctl(10, 0x17, 1, &words).with(0x5000, [0; 2]);
    let after = before.words(0x1030, &[9, 4]).with(0x5000, [0xf0, 0x01]);
    let text = before.text(DOMCTL, &[0x1000], &after);
    assert!(
        text.ends_with(
            "shadow_op={op=XEN_DOMCTL_SHADOW_OP_CLEAN, mode=XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL, mb=0, \
             dirty_bitmap=f001, pages=12, stats={fault_count=9, dirty_count=4}}})"
        ),
        "{text}"
    );
}

#[test]
fn frames_go_in_and_kinds_come_out() {
    let before = domctl(61, 0x17, 1, &[2, 0, 0x5000, 0]).words(0x5000, &[0x10, 0, 0x11, 0]);
    let after = before.words(0x5000, &[0x9000_0000, 0, 0xf000_0000, 0]);
    let text = before.text(DOMCTL, &[0x1000], &after);
    assert!(
        text.ends_with(
            "getpageframeinfo3={num=2, array=[0x10->XEN_DOMCTL_PFINFO_L1TAB|XEN_DOMCTL_PFINFO_LPINTAB, \
             0x11->XEN_DOMCTL_PFINFO_XTAB]}})"
        ),
        "{text}"
    );
}

#[test]
fn an_events_options_are_shown_when_it_is_turned_on() {
    let enable = domctl(77, 0x17, 1, &[0, 0, 0x0001_0101, 0, 0xff, 0]);
    let text = enable.text(DOMCTL, &[0x1000], &enable);
    assert!(
        text.ends_with(
            "monitor_op={op=XEN_DOMCTL_MONITOR_OP_ENABLE, event=XEN_DOMCTL_MONITOR_EVENT_WRITE_CTRLREG, \
             mov_to_cr={index=VM_EVENT_X86_CR3, sync=true, onchangeonly=true, bitmask=0xff}}})"
        ),
        "{text}"
    );
    let ask = domctl(77, 0x17, 1, &[2, 0xdead]);
    let text = ask.text(DOMCTL, &[0x1000], &domctl(77, 0x17, 1, &[2, 0x6]));
    assert!(
        text.ends_with("event=XEN_DOMCTL_MONITOR_EVENT_MOV_TO_MSR|XEN_DOMCTL_MONITOR_EVENT_SINGLESTEP}})"),
        "{text}"
    );
}

#[test]
fn a_debuggers_buffer_is_read_or_written() {
    let words = |write| [0, 0, 0xa000, 0, 0x5000, 0, 2, write];
    let read = domctl(1000, 0x17, 1, &words(0)).with(0x5000, [0; 2]);
    let text = read.text(DOMCTL, &[0x1000], &read.with(0x5000, [7, 8]));
    assert!(text.ends_with("gva=0xa000, uva=0708, len=2, gwr=false, remain=0}})"), "{text}");
    let write = domctl(1000, 0x17, 1, &words(1)).with(0x5000, [3, 4]);
    let text = write.text(DOMCTL, &[0x1000], &write);
    assert!(text.ends_with("gva=0xa000, uva=0304, len=2, gwr=true, remain=0}})"), "{text}");
}

#[test]
fn a_device_models_second_buffer_is_what_its_op_says() {
    let lists = Guest::default().words(0x1000, &[0x2000, 0, 24, 0, 0x3000, 0, 32, 0]);
    let modified = lists.words(0x2000, &[11, 0, 2, 0, 0, 0]).words(0x3000, &[1, 0, 0x10, 0, 2, 0, 0x20, 0]);
    assert_eq!(
        modified.text(DM_OP, &[5, 2, 0x1000], &modified),
        "dm_op(domid=5, nr_bufs=2, bufs=[{h=0x2000, size=24}, {h=[{nr=1, first_pfn=0x10}, \
         {nr=2, first_pfn=0x20}], size=32}], \
         op={op=XEN_DMOP_modified_memory, modified_memory={nr_extents=2, opaque=0}})"
    );
    let track = Guest::default()
        .words(0x1000, &[0x2000, 0, 24, 0, 0x3000, 0, 2, 0])
        .words(0x2000, &[7, 0, 16, 0, 0x100, 0])
        .with(0x3000, [0; 2]);
    let text = track.text(DM_OP, &[5, 2, 0x1000], &track.with(0x3000, [0xff, 0]));
    assert!(text.contains("{h=ff00, size=2}], op={op=XEN_DMOP_track_dirty_vram,"), "{text}");
}
