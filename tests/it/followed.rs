//! The example that follows a connection does what it says.

use crate::harness::{Cluster, Form, Kind, PATIENCE, Session, until};
use std::io::Write;
use std::sync::{Arc, Mutex};

#[path = "../../examples/follow_a_connection.rs"]
mod follow_a_connection;

/// What was written so far.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("whole").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("whole").clone()).expect("text")
    }
}

#[test]
fn the_example_follows_a_connection_from_its_beginning_to_its_end() {
    let cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    let mut psql = Session::open(&client);
    psql.ask("select 'con' || 'nected';", "connected");
    let out = Written::default();
    let (data_dir, mut writes) = (cluster.node(Kind::Proxy).config.data_dir.clone(), out.clone());
    let following = std::thread::spawn(move || {
        follow_a_connection::follow(&data_dir, &mut writes).map_err(|error| error.to_string())
    });
    until("it shows what happened so far", PATIENCE, || {
        let text = out.text();
        let parts = ["OpenRelay", "agent-1", "proxy-1", "GetUpstreamClient"];
        parts.iter().all(|part| text.contains(part)).then_some(())
    });
    let before = out.text();
    assert!(!following.is_finished() && !before.contains("has ended"), "{before}");
    drop(psql);
    following.join().expect("it ends").expect("the socket answers");
    let text = out.text();
    assert!(text.ends_with("the connection has ended\n"), "{text}");
    assert!(
        text.len() > before.len() + "the connection has ended\n".len(),
        "the end has steps, too: {text}"
    );
}
