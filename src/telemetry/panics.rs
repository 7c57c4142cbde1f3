//! What is logged and kept of a panic: where it was, and its text if that is a literal of the source.
//!
//! A formatted text may hold what people sent: the panic of a slice that is cut inside of a character quotes the whole string.
//! So such a text is withheld, from the log and from whatever is made of the panic later (a reason in an audit event, an answer
//! to an administrator).

use std::any::Any;
use std::cell::RefCell;
use std::panic::PanicHookInfo;

const WITHHELD: &str = "message withheld";

thread_local! {
    /// Where this thread panicked last; taken by whoever catches it.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From here on the panics of this process are logged, by the rule of this file.
pub fn install_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let place = place_of(panic);
        let thread = std::thread::current();
        tracing::error!(
            target: "postern::panic", thread = thread.name().unwrap_or("unnamed"), place = place, error = shown(panic.payload()), "panic"
        );
        // Not there any more while the thread's own locals are dropped.
        let _gone = PLACE.try_with(|last| last.replace(Some(place)));
    }));
}

fn place_of(panic: &PanicHookInfo<'_>) -> String {
    panic.location().map_or_else(
        || "an unknown place".to_owned(),
        |at| format!("{}:{}:{}", at.file(), at.line(), at.column()),
    )
}

fn shown(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or(WITHHELD)
}

/// What is kept of a panic that was caught on this thread just now.
pub fn text(payload: &(dyn Any + Send)) -> String {
    let place = PLACE.try_with(|last| last.take()).ok().flatten();
    match place {
        Some(place) => format!("panic at {place}: {}", shown(payload)),
        None => format!("panic: {}", shown(payload)),
    }
}

/// What is kept of a task of tokio's that came to nothing: its own words would quote the panic.
pub fn of_task(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(payload) => format!("panic: {}; the log says where", shown(payload.as_ref())),
        Err(_) => "the task was ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;
    use std::sync::{Arc, Mutex};

    const SENT: &str = "select 'naïve secret'";

    fn caught(work: impl FnOnce() + std::panic::UnwindSafe) -> String {
        text(catch_unwind(work).expect_err("it panics").as_ref())
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_panic_quotes_is_neither_logged_nor_kept_and_where_it_was_is_both() {
        install_hook();
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let kept = tracing::subscriber::with_default(log, || {
            [
                // In the middle of the ï: the standard library quotes the string.
                caught(|| assert!(!SENT[..std::hint::black_box(11)].is_empty())),
                caught(|| panic!("not understood: {}", std::hint::black_box(SENT))),
                caught(|| panic!("a literal of ours")),
            ]
        });
        let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        for said in kept.iter().map(String::as_str).chain([logged.as_str()]) {
            assert!(!said.contains("naïve") && !said.contains("not understood"), "{said}");
            assert!(said.contains("panics.rs:"), "it says where: {said}");
        }
        assert!(
            kept[0].ends_with("message withheld") && kept[1].ends_with("message withheld"),
            "{kept:?}"
        );
        assert!(kept[2].ends_with("a literal of ours"), "{kept:?}");
        assert_eq!(logged.matches("message withheld").count(), 2, "{logged}");
        assert!(logged.contains("a literal of ours"), "{logged}");
    }

    #[tokio::test]
    async fn a_task_that_panicked_is_not_quoted() {
        let task = tokio::spawn(async { panic!("{}", std::hint::black_box(SENT)) });
        let error: tokio::task::JoinError = task.await.expect_err("it panics");
        let said = of_task(error);
        assert!(said.contains("withheld") && !said.contains("secret"), "{said}");
    }
}
