//! seccomp: system calls that a model's process never makes, whatever its file says.
//!
//! Those that only code of strangers would make, running programs, tracing, mounting, loading modules, end
//! the process: `ggml::crash` makes last words of it. Those that libraries try and can do without are refused
//! with EPERM: sockets, processes of its own, signals to others. What is in neither list is allowed: drivers
//! of GPUs and C libraries differ too much for a list of what may be called.
//!
//! io_uring stays, because weights are read through it, and its requests pass by this filter: files and TCP
//! are Landlock's there.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter, apply_filter_all_threads,
};

/// Sockets that a process may still make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sockets {
    None,
    /// Drivers of GPUs talk to services of their own.
    Local,
}

/// Who is restricted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threads {
    /// All that there are, a GPU driver's too.
    All,
    /// The one that asks, and those that it starts.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests go on in the process that they restrict"))]
    This,
}

/// These end the process.
const ENDING: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_bpf,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// These fail with EPERM.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_tkill,
    libc::SYS_process_madvise,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

/// Restricts threads for good.
///
/// # Errors
/// Where the kernel has no filters, or the processor is one that they are not made for.
pub(super) fn restrict(sockets: Sockets, threads: Threads) -> Result<(), Error> {
    let apply = |program: BpfProgram| match threads {
        Threads::All => apply_filter_all_threads(&program),
        Threads::This => apply_filter(&program),
    };
    apply(foreign_numbers())?;
    apply(program(always(&[libc::SYS_clone3]), SeccompAction::Errno(errno(libc::ENOSYS)))?)?;
    apply(program(refused(sockets)?, SeccompAction::Errno(errno(libc::EPERM)))?)?;
    // The last one: whoever is refused here may not even add a filter.
    apply(program(always(ENDING), SeccompAction::Trap)?)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn program(rules: Rules, action: SeccompAction) -> Result<BpfProgram, BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?.try_into()
}

fn always(calls: &[libc::c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn refused(sockets: Sockets) -> Result<Rules, BackendError> {
    use SeccompCmpOp::{MaskedEq, Ne};
    let ours = u64::from(std::process::id());
    let [family, thread] = [libc::AF_UNIX, libc::CLONE_THREAD].map(|flag| u64::from(flag.unsigned_abs()));
    let mut rules = always(REFUSED);
    let local = [condition(0, Ne, family)?];
    rules.insert(libc::SYS_socket, if sockets == Sockets::Local { vec![rule(&local)?] } else { Vec::new() });
    // Threads are made as ever: where `clone3` is not there, C libraries use `clone`.
    rules.insert(libc::SYS_clone, vec![rule(&[condition(0, MaskedEq(thread), 0)?])?]);
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        rules.insert(call, vec![rule(&[condition(0, Ne, ours)?])?]);
    }
    let others = [condition(0, Ne, ours)?, condition(0, Ne, 0)?];
    rules.insert(libc::SYS_prlimit64, vec![rule(&others)?]);
    Ok(rules)
}

fn condition(argument: u8, compare: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, compare, value)
}

fn rule(conditions: &[SeccompCondition]) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.to_vec())
}

fn errno(errno: libc::c_int) -> u32 {
    errno.unsigned_abs()
}

/// Calls of x86's other interface for 64 bits ("x32") have numbers of their own, beginning here; no C library
/// of ours makes them.
const FOREIGN: u32 = 0x4000_0000;

/// Answers those with ENOSYS, so that the lists above need not name each call twice.
fn foreign_numbers() -> BpfProgram {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    let refuse = libc::SECCOMP_RET_ERRNO | errno(libc::ENOSYS);
    vec![
        // The number of the call is the first field of the kernel's `seccomp_data`.
        step(LOAD_WORD, 0, 0, 0),
        step(JUMP_IF_AT_LEAST, 0, 1, FOREIGN),
        step(RETURN, 0, 0, refuse),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

/// Whether the kernel has such filters.
pub(super) fn is_known() -> bool {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    actions.split_whitespace().any(|action| action == "trap")
}
