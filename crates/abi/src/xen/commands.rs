//! Sub-op lists of calls that keep the number in a struct's `cmd`: the list, and the names for that field.

/// `commands!(CMD, OPS = "what", ARGS, { 1 => "XEN_SYSCTL_readconsole", … })`: an enumeration for the field and
/// the list of sub-ops, which all take the same arguments. `returns Dec` behind a name says what a result means
/// that is neither zero nor an errno.
macro_rules! commands {
    ($names:ident, $ops:ident = $what:literal, $args:expr, {
        $($number:literal => $name:literal $(returns $show:ident)?),* $(,)?
    }) => {
        enumeration!($names = $what { $($number => $name),* });
        const $ops: &[SubOp] = &[$(op($number, $name, $args)$(.returning(Show::$show))?),*];
    };
}

pub(super) use commands;
