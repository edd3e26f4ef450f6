use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};

use super::super::{answers, bind, queue};
use super::*;
use crate::bets::{Answer, Id, Outcome, Stamps, Status};
use crate::net::{TcpEnd, TcpOptions, UdpOptions};
use crate::rtc::sdp::IceCredentials;
use crate::rtc::sdp::{Offer, negotiate_publisher};
use crate::rtc::stun::{BindingResponse, IceRole, IntegrityKey, RequestParameters, write_request};
use crate::shard::SLACK;
use crate::shard::testing::{roulette, shard_config};

const OFFER: &[u8] = include_bytes!("../../../../tests/fixtures/offers/obs-publisher.sdp");
const OFFERED_UFRAG: &str = "vBqN";
const LIMIT: Duration = Duration::from_secs(20);

/// The loop of a shard on loopback, which turns when a test says so.
fn turn() -> Turn {
    let seat = Seat {
        config: shard_config(now(), LIMIT),
        core: None,
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        options: UdpOptions::default(),
        tcp: Some(TcpOptions::default()),
        commands: queue().1,
        answers: answers().1,
        peers: Vec::new(),
        events: mpsc::unbounded_channel().0,
        bets: None,
        report: watch::channel(ShardReport::default()).0,
    };
    let (socket, tcp, waiter, _) = bind(&seat).expect("loopback");
    Turn::new(seat, socket, tcp, waiter)
}

fn publisher(turn: &mut Turn) -> IceCredentials {
    let offer = Offer::parse(OFFER).expect("an offer");
    let negotiated = negotiate_publisher(&offer).expect("a publisher's");
    turn.shard.add_publisher(now(), &roulette(), &negotiated, &[7; 32]).ice
}

/// A framed check for a session, keyed by `pwd`.
fn check(ufrag: &str, pwd: &str) -> Vec<u8> {
    let parameters = RequestParameters {
        transaction_id: [3; 12],
        local_ufrag: ufrag,
        remote_ufrag: OFFERED_UFRAG,
        priority: Some(1),
        role: Some((IceRole::Controlling, 1)),
        use_candidate: true,
    };
    let mut message = [0; 256];
    let len = write_request(&mut message, &parameters, &IntegrityKey::new(pwd));
    [&(len as u16).to_be_bytes()[..], &message[..len]].concat()
}

fn until(turn: &mut Turn, condition: impl Fn(&Turn) -> bool) {
    let deadline = now() + LIMIT;
    while !condition(turn) {
        assert!(now() < deadline, "happens in time");
        turn.waiter.wait(LIMIT).expect("waits");
        turn.take_frames(now());
        turn.drain(now());
    }
}

fn connect(turn: &Turn) -> TcpStream {
    let listener = turn.tcp.as_ref().expect("enabled").local_address();
    let stream = TcpStream::connect(listener).expect("loopback");
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    stream
}

/// A publisher over TCP whose check was true.
fn proven(turn: &mut Turn) -> (TcpStream, TransportAddress, IceCredentials) {
    let ice = publisher(turn);
    let mut peer = connect(turn);
    let address = TransportAddress::tcp(peer.local_addr().expect("bound"));
    peer.write_all(&check(&ice.ufrag, &ice.pwd)).expect("room");
    until(turn, |turn| turn.shard.knows(address));
    (peer, address, ice)
}

fn ended(turn: &Turn, cause: TcpEnd) -> u64 {
    turn.tcp.as_ref().expect("enabled").report().ended[cause as usize]
}

#[test]
fn what_players_say_is_read_while_much_is_sent() {
    let mut turn = turn();
    let to = turn.socket.local_address();
    let ice = publisher(&mut turn);
    let bind = |_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let paths: Vec<UdpSocket> = (0..LARGE_SLICE).map(bind).collect();
    for path in &paths {
        path.send_to(&check(&ice.ufrag, &ice.pwd)[2..], to).expect("loopback");
    }
    paths[0].send_to(&[23, 254, 253], to).expect("loopback");
    // Each check has an answer, and after so many the other socket is looked at.
    turn.take_datagrams();
    let report = turn.shard.report(now());
    assert_eq!(report.datagrams_received, LARGE_SLICE as u64 + 1);
    assert_eq!(report.datagrams_sent, LARGE_SLICE as u64);
}

#[test]
fn rtcp_wakes_the_thread_where_it_is_rare_and_waits_for_its_time_where_it_is_dense() {
    let player = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    for (lane, packet_type, latest) in [(RtcpLane::Requests, 205, RTCP_PACE), (RtcpLane::Reports, 201, SLACK)] {
        let mut turn = turn();
        let to = turn.socket.local_address();
        let send = || player.send_to(&[0x81, packet_type, 0, 1, 0, 0, 0, 1], to).expect("loopback");
        let mut at = now() + 2 * SLACK;
        let times = |turn: &Turn| (turn.lanes[lane as usize].due, turn.lanes[lane as usize].latest);
        let received = |turn: &mut Turn| turn.shard.report(now()).datagrams_received;
        let woken = |turn: &mut Turn, most| turn.waiter.wait(most).expect("waits").rtcp[lane as usize];

        send();
        assert!(woken(&mut turn, LIMIT));
        turn.take_rtcp(lane, at);
        assert_eq!((received(&mut turn), times(&turn)), (1, (None, None)), "the first for a long time");

        send();
        assert!(woken(&mut turn, LIMIT), "it is watched again");
        at += RTCP_PACE / 2;
        turn.take_rtcp(lane, at);
        assert_eq!(times(&turn), (Some(at + RTCP_PACE), Some(at + latest)), "soon after the first");
        assert_eq!(turn.next_wake(), turn.report_due.min(at + latest));

        send();
        assert!(!woken(&mut turn, RTCP_PACE), "nothing but time wakes for it now");
        at += RTCP_PACE;
        turn.take_rtcp(lane, at);
        assert_eq!(received(&mut turn), 3);

        at += latest;
        turn.take_rtcp(lane, at);
        assert_eq!(times(&turn), (Some(at + RTCP_PACE), Some(at + latest)), "nothing came once");
        at += latest + RTCP_PACE;
        turn.take_rtcp(lane, at);
        assert_eq!(times(&turn), (None, None), "nothing came for long");
        send();
        assert!(woken(&mut turn, LIMIT));
    }
}

#[test]
fn over_tcp_only_a_valid_check_keeps_a_connection() {
    let mut turn = turn();
    let ice = publisher(&mut turn);
    let wrong = [check(&ice.ufrag, "not the password of anybody"), check("AAAAAAAAAAAA", &ice.pwd), vec![0, 1, 128]];
    for (n, first) in wrong.iter().enumerate() {
        let mut stranger = connect(&turn);
        stranger.write_all(first).expect("room");
        until(&mut turn, |turn| ended(turn, TcpEnd::NoCheck) == n as u64 + 1);
        assert!(matches!(stranger.read(&mut [0; 8]), Ok(0) | Err(_)), "closed without a word");
    }
    let mut peer = connect(&turn);
    let address = TransportAddress::tcp(peer.local_addr().expect("bound"));
    peer.write_all(&check(&ice.ufrag, &ice.pwd)).expect("room");
    until(&mut turn, |turn| turn.shard.knows(address));
    let mut prefix = [0; 2];
    peer.read_exact(&mut prefix).expect("an answer");
    let mut answer = vec![0; usize::from(u16::from_be_bytes(prefix))];
    peer.read_exact(&mut answer).expect("all of it");
    assert!(BindingResponse::parse(&answer).expect("a response").verify(&IntegrityKey::new(&ice.pwd)));
    assert_eq!(turn.tcp.as_ref().expect("enabled").report().connections, 1);
}

#[test]
fn answers_are_taken_a_share_at_a_time_and_wake_the_thread() {
    let mut turn = turn();
    let (sender, receiver) = answers();
    turn.answers = receiver;
    let waker = turn.waiter.waker();
    assert!(turn.answers.poll_recv(&mut Context::from_waker(&waker)).is_pending());
    let answer = || {
        Box::new(Answer {
            to: SlotKey { slot: 3, generation: 1 },
            bet_id: Id::new("b").expect("an id"),
            outcome: Outcome::Accepted,
            stamps: Stamps::at(now()),
            late: false,
        })
    };
    (0..150).for_each(|_| sender.try_send(answer()).expect("room"));
    let begun = now();
    turn.waiter.wait(LIMIT).expect("waits");
    assert!(now() - begun < LIMIT, "nothing but the answers has woken it");
    let counted = |turn: &mut Turn| turn.shard.report(now()).bets.outcomes[Status::Accepted as usize];
    assert_eq!((turn.take_answers(None), counted(&mut turn)), (64, 64));
    assert_eq!((turn.take_answers(Some(answer())), turn.take_answers(None), turn.take_answers(None)), (64, 23, 0));
    assert_eq!(counted(&mut turn), 151, "of a player who has left, too");
}

#[test]
fn over_tcp_what_there_is_to_say_comes_before_the_end() {
    let mut turn = turn();
    let (mut peer, _, ice) = proven(&mut turn);
    // The answer to another check, and the end of the connection, in one turn.
    let received = turn.shard.report(now()).datagrams_received;
    peer.write_all(&check(&ice.ufrag, &ice.pwd)).expect("room");
    let deadline = now() + LIMIT;
    while turn.shard.report(now()).datagrams_received == received {
        assert!(now() < deadline, "it comes in time");
        turn.waiter.wait(LIMIT).expect("waits");
        turn.take_frames(now());
    }
    turn.shard.close_all(now());
    turn.drain(now());
    let mut said = Vec::new();
    peer.read_to_end(&mut said).expect("its end");
    let first = 2 + usize::from(u16::from_be_bytes([said[0], said[1]]));
    assert_eq!(said.len(), 2 * first, "both answers came before the end");
}

#[test]
fn a_tcp_connection_that_is_gone_is_no_path_any_more() {
    let mut turn = turn();
    let (peer, address, _) = proven(&mut turn);
    drop(peer);
    until(&mut turn, |turn| ended(turn, TcpEnd::Peer) == 1);
    assert!(!turn.shard.knows(address));
}
