//! The words of the condition language, with what they mean: for the documentation and for suggestions.

/// What is known of every call: name, meaning.
pub(crate) const VALUES: &[(&str, &str)] = &[
    ("domain", "id of the calling domain"),
    ("vcpu", "its vCPU"),
    ("pcpu", "the CPU of Xen that the call was made on"),
    ("privileged", "truth value: the caller is the control domain"),
    ("kind", "kind of guest: `'pv'`, `'pvh'`, `'hvm'` or `'unknown'`"),
    ("mode", "how the caller entered: `'pv64'`, `'pv32'`, `'hvm64'` or `'hvm32'`"),
    ("cpl", "privilege level of the caller"),
    ("cs", "code segment selector; 0 for HVM and PVH guests"),
    ("rip", "where the guest goes on after the call"),
    ("rsp", "the guest's stack pointer"),
    ("hypercall", "the hypercall, by name: `hypercall == 'memory_op'`"),
    ("number", "the hypercall's number"),
    (
        "sub_op",
        "the sub-operation, by name; absent if there is none of that number. Names can be compared where `on` names the hypercall",
    ),
    ("sub_op_number", "number of the sub-operation; absent if there is none"),
    ("inner", "truth value: an inner call of a multicall"),
    ("continuation", "truth value: it continues a preempted call"),
    ("cut", "truth value: more guest memory belongs to the call than was copied"),
    ("result", "at return: what it returned; absent unless it did"),
    ("errno", "at return: the error by name, `errno == 'EPERM'`; `errno == ''` if there is none"),
    ("outcome", "at return: `'returned'`, `'preempted'`, `'resumed'` or `'unfinished'`"),
    ("duration_ns", "at return: nanoseconds from entry to end"),
];

/// Names that stand for something that is not a value alone.
pub(crate) const CONSTANTS: &[(&str, &str)] = &[
    ("args.<path>", "arguments and fields by the names of Xen's headers; see below"),
    ("raw_args[i]", "argument register `i`, 0 to 5, whatever the call"),
];

/// Functions: how they are written, what they say.
pub(crate) const FUNCTIONS: &[(&str, &str)] = &[
    (
        "in_xen(x)",
        "the caller is a PV guest and address `x` lies in Xen's part of its address space: 0xffff800000000000 to 0xffff87ffffffffff for 64-bit, 0xf5800000 to 0xffffffff for 32-bit callers",
    ),
    (
        "handles_in_xen()",
        "any guest handle among the call's arguments, or in the captured memory behind them, points into Xen; also written `any_handle(in_xen)`. In lists the first 8 elements are looked at. Never absent",
    ),
    ("handles_not_canonical()", "any such handle is not canonical. Never absent"),
    ("canonical(x)", "address `x` is canonical for 48 bits; for a 32-bit caller, below 4 GiB"),
    ("has_flag(path, 'NAME')", "the flag is set in the value"),
    ("has(path)", "the value is at hand. Never absent"),
    (
        "unreadable(path)",
        "the pointer's memory could not be read to the end; false for a null pointer, absent if it was not captured",
    ),
    ("after(path)", "at return: the value that Xen left there"),
    ("changed(path)", "at return: what was captured there before and after the call differs"),
    ("size(path)", "how many elements of a list or array were captured"),
    (
        "path.exists(x, condition)",
        "the condition holds for an element `x` of a list or array; absent if for none, but it is undecided for one or not all were captured",
    ),
    (
        "path.all(x, condition)",
        "the condition holds for every element `x`; absent if for none it does not, but it is undecided for one or not all were captured",
    ),
    ("math.bitAnd(a, b)", "bits set in both"),
    ("math.bitOr(a, b)", "bits set in either"),
    ("math.bitXor(a, b)", "bits set in one"),
    ("math.bitShiftLeft(a, n)", "`a` times 2 to the `n`, exact"),
    ("math.bitShiftRight(a, n)", "`a` shifted to the right"),
    ("math.least(a, b, …)", "the smallest; also `min`"),
    ("math.greatest(a, b, …)", "the largest; also `max`"),
];
