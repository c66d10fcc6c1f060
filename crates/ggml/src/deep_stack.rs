//! A stack that recursion over what clients send cannot exhaust.

/// Runs `work` with a stack that the recursion of C++ cannot exhaust within the bounds that are checked
/// before: an object with thousands of optional properties recurses once per property.
pub(crate) fn on_deep_stack<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    const STACK: usize = 256 << 20; // address space only: pages that are not touched cost nothing
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        match thread.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err("internal error".to_owned()),
            Err(error) => Err(format!("no thread: {error}")),
        }
    })
}
