//! How often a multiplexer writes to the layer below, which makes a TLS record and a system call of each write.

use super::counted_writes::{Counted, Writes};
use super::mux::{Inbound, Mux, MuxSide, MuxStream, Window, start};
use super::test_thread::block_on;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Of a frame of yamux.
const HEADER_BYTES: usize = 12;
const STREAMS: usize = 50;
const WORDS: &[u8] = b"a small frame";

/// A connection with streams that both sides have used, and what its dialled side writes from now on.
struct World {
    near: Vec<MuxStream>,
    far: Vec<MuxStream>,
    writes: Writes,
    _keep: (Mux, Inbound, Mux, Inbound),
}

async fn world() -> World {
    let (a, b) = tokio::io::duplex(1024 * 1024);
    let (a, writes) = Counted::new(a, usize::MAX);
    let (dialled, dialled_inbound, drive_a) = start(a, MuxSide::Dialled, Window::FIXED);
    let (accepted, mut inbound, drive_b) = start(b, MuxSide::Accepted, Window::FIXED);
    tokio::spawn(drive_a);
    tokio::spawn(drive_b);
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..STREAMS {
        let mut one = dialled.open().await.unwrap();
        one.write_all(b"?").await.unwrap();
        let mut other = inbound.recv().await.unwrap();
        other.read_exact(&mut [0]).await.unwrap();
        other.write_all(b"!").await.unwrap();
        one.read_exact(&mut [0]).await.unwrap();
        near.push(one);
        far.push(other);
    }
    // Answers to pings of the other side, too.
    while writes.take() != (0, 0, 0) {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    World {
        near,
        far,
        writes,
        _keep: (dialled, dialled_inbound, accepted, inbound),
    }
}

#[test]
fn small_frames_of_many_streams_in_one_turn_leave_in_one_write() {
    block_on(async {
        let mut world = world().await;
        for stream in &mut world.near {
            // As a relay does; the driver has its turn when nobody else goes on.
            stream.write_all(WORDS).await.unwrap();
            stream.flush().await.unwrap();
        }
        assert_eq!(world.writes.take(), (0, 0, 0), "the driver writes, and nobody else");
        for stream in &mut world.far {
            let mut heard = [0; WORDS.len()];
            stream.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, WORDS);
        }
        let (bytes, writes, flushes) = world.writes.take();
        assert_eq!((bytes, writes), (STREAMS * (HEADER_BYTES + WORDS.len()), 1));
        // Who has looked at all streams looks once more, and flushes where nothing is left: no system call comes of it.
        assert!((1..=2).contains(&flushes), "{flushes}");
    });
}

#[test]
fn a_frame_by_itself_is_one_write_and_one_flush_with_its_header() {
    block_on(async {
        let mut world = world().await;
        for _ in 0..10 {
            world.near[0].write_all(WORDS).await.unwrap();
            world.far[0].read_exact(&mut [0; WORDS.len()]).await.unwrap();
            assert_eq!(world.writes.take(), (HEADER_BYTES + WORDS.len(), 1, 1));
        }
    });
}
