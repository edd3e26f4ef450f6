//! What a process has to ask the kernel for itself: open files, and which of its threads goes first.
#![allow(unsafe_code)]

use std::io;

/// Raises the limit of open files as far as this process may, and says what it is now.
///
/// It is 1024 in many places, from times when `select` broke beyond that; each TCP connection is an open file.
///
/// # Errors
/// The kernel tells or takes no limit.
pub fn raise_open_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a whole `rlimit` that lives through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: as above; the kernel only reads it.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// How much later a thread of the control plane gets its turn: a third of a shard's weight (sched(7)).
const NICE: libc::c_int = 5;

/// Lets shards go before the calling thread where there are not enough cores for both.
///
/// # Errors
/// The kernel refuses, which it does not for a thread's own priority if that was never lowered further.
pub fn yield_to_shards() -> io::Result<()> {
    // A process that was started with a lower priority than that: this is no reason to raise it.
    let nice = nice().max(NICE);
    // SAFETY: takes and returns plain numbers. On Linux, process 0 is the calling thread (setpriority(2), BUGS).
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Of the calling thread.
fn nice() -> libc::c_int {
    // SAFETY: takes and returns plain numbers.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// The cores that the calling thread may run on, in ascending order.
///
/// # Errors
/// The kernel does not say, as where there are more than 1024.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    // SAFETY: a mask of plain bits, of which 0 is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is of the size that is given and lives through the call. Process 0 is the calling thread (sched_setaffinity(2)).
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the set has so many bits.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect())
}

/// Keeps the calling thread, and threads that it starts from now on, to these cores.
///
/// # Errors
/// The thread may run on none of them.
pub fn keep_to(cores: &[usize]) -> io::Result<()> {
    // SAFETY: a mask of plain bits, of which 0 is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for core in cores.iter().filter(|core| **core < libc::CPU_SETSIZE as usize) {
        // SAFETY: the set has so many bits.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    // SAFETY: as above; the kernel only reads it.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How long a thread that is prompt runs before it is another one's turn, where there are not enough cores, in nanoseconds.
const SLICE: u64 = 100_000;

/// Lets the calling thread run soon after it is woken where others keep all cores busy, for a little at a time.
///
/// Among threads of one weight Linux runs first whose slice ends first, so that who asks for short ones waits for less
/// (EEVDF; the slice is [`libc::sched_attr::sched_runtime`] since 6.12). By default a thread that is woken may wait for a
/// slice of 3 ms. Older kernels take the wish and do nothing about it.
///
/// # Errors
/// The kernel refuses, or a sandbox does.
pub fn wake_promptly() -> io::Result<()> {
    let mut attributes = scheduling()?;
    // Who gave the process a real-time policy knows what it wants.
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.sched_runtime = SLICE;
    // SAFETY: as above; the kernel only reads it.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How the calling thread is scheduled.
fn scheduling() -> io::Result<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>();
    // SAFETY: a struct of plain numbers, of which 0 is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: `attributes` is of `size` bytes and lives through the call. Process 0 is the calling thread (sched_setattr(2)).
    match unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) } {
        0 => Ok(attributes),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_thread_has_short_slices_and_keeps_its_priority() {
        let before = nice();
        let knows_slices = scheduling().expect("sched_getattr").sched_runtime > 0;
        let prompt = std::thread::spawn(|| {
            yield_to_shards().expect("setpriority");
            wake_promptly().expect("sched_setattr");
            (nice(), scheduling().expect("sched_getattr").sched_runtime)
        });
        let (nice, slice) = prompt.join().expect("the thread");
        assert_eq!(nice, before.max(NICE));
        // Before Linux 6.12 there is none to be asked for.
        assert_eq!(slice, if knows_slices { SLICE } else { 0 });
    }

    #[test]
    fn a_thread_and_those_that_it_starts_keep_to_their_cores() {
        let all = allowed_cores().expect("sched_getaffinity");
        // Not `available_parallelism`, which counts what a control group lets the process use of them.
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("proc(5)");
        let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:")).expect("a mask");
        let bits: u32 = mask.chars().filter_map(|digit| digit.to_digit(16)).map(u32::count_ones).sum();
        assert_eq!(all.len() as u32, bits);
        let last = *all.last().expect("a core");
        let (own, inherited) = std::thread::spawn(move || {
            keep_to(&[last]).expect("sched_setaffinity");
            let inherited = std::thread::spawn(allowed_cores).join().expect("the thread");
            (allowed_cores().expect("sched_getaffinity"), inherited.expect("sched_getaffinity"))
        })
        .join()
        .expect("the thread");
        assert_eq!((own, inherited), (vec![last], vec![last]));
        assert_eq!(allowed_cores().expect("sched_getaffinity"), all);
        let error = keep_to(&[1023]).expect_err("not there");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn only_the_thread_that_yields_does() {
        let before = nice();
        let yielded = std::thread::spawn(|| {
            yield_to_shards().expect("setpriority");
            nice()
        });
        assert_eq!(yielded.join().expect("the thread"), before.max(NICE));
        assert_eq!(nice(), before);
    }

    #[test]
    fn the_limit_of_open_files_is_as_high_as_it_may_be() {
        let limit = raise_open_file_limit().expect("setrlimit");
        assert_eq!(raise_open_file_limit().expect("setrlimit"), limit);
        assert!(limit >= 64);
    }
}
