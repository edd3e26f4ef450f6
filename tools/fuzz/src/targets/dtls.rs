//! A handshake between our two roles, whose datagrams are lost, doubled, damaged or made up on their way, and what comes
//! after it. Either side may give up; nobody may panic, and both sides end with the same keys or with none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tableside::rtc::dtls::{ClientHello, DtlsIdentity, DtlsOutput, DtlsScratch, DtlsTransport, DtlsVersion};
use tableside::rtc::sdp::{DtlsRole, Fingerprint, FingerprintHash};
use tableside::rtc::srtp::{MasterKey, RtpOpener, RtpSealer};

use crate::input::{Input, chunk, damage};

const ROUNDS: usize = 64;

/// The largest datagram that a socket hands over.
const MAX_DATAGRAM: usize = 2048;

struct Side {
    dtls: DtlsTransport,
    scratch: DtlsScratch,
    sent: Vec<Vec<u8>>,
    keys: Option<(MasterKey, MasterKey)>,
    data: usize,
    failed: bool,
}

impl Side {
    fn new(now: Instant, identity: &Arc<DtlsIdentity>, role: DtlsRole, peer: &DtlsIdentity) -> Self {
        let expected = Fingerprint { hash: FingerprintHash::Sha256, digest: peer.fingerprint().to_vec() };
        Self {
            dtls: DtlsTransport::new(now, identity, role, vec![expected]).expect("DTLS starts"),
            scratch: DtlsScratch::default(),
            sent: Vec::new(),
            keys: None,
            data: 0,
            failed: false,
        }
    }

    fn drive(&mut self) {
        let (sent, keys, data) = (&mut self.sent, &mut self.keys, &mut self.data);
        let driven = self.dtls.drive(&mut self.scratch, |output| match output {
            DtlsOutput::Datagram(bytes) => sent.push(bytes.to_vec()),
            DtlsOutput::Connected { local, remote } => assert!(keys.replace((local, remote)).is_none(), "keys twice"),
            DtlsOutput::Data(_) => *data += 1,
            DtlsOutput::Closed => {}
        });
        self.failed |= driven.is_err();
    }

    fn receive(&mut self, now: Instant, datagram: &[u8]) {
        if !self.failed && datagram.len() <= MAX_DATAGRAM {
            self.failed |= self.dtls.handle_datagram(now, datagram).is_err_and(|error| error.is_fatal());
            self.drive();
        }
    }

    fn wake(&mut self, now: Instant) {
        if !self.failed {
            self.failed |= self.dtls.handle_timeout(now).is_err();
            self.drive();
        }
    }
}

/// Which versions meet, then a decision for every datagram. What is left over is read as a ClientHello.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let versions = input.byte();
    let (ours, theirs) = (identity(versions & 3), identity(versions >> 2 & 3));
    let mut now = Instant::now();
    let mut client = Side::new(now, &theirs, DtlsRole::Client, &ours);
    let mut server = Side::new(now, &ours, DtlsRole::Server, &theirs);
    client.drive();
    for round in 0..ROUNDS {
        let from_client = std::mem::take(&mut client.sent);
        pass(&mut input, now, from_client, &mut server);
        let from_server = std::mem::take(&mut server.sent);
        pass(&mut input, now, from_server, &mut client);
        if client.sent.is_empty() && server.sent.is_empty() {
            if input.is_empty() && round > 8 {
                break;
            }
            now += Duration::from_millis(1 + u64::from(input.byte()) * 8);
            client.wake(now);
            server.wake(now);
            talk(&mut input, &mut client);
            talk(&mut input, &mut server);
        }
    }
    if let (Some((_, from_server)), Some((to_client, _))) = (&client.keys, &server.keys) {
        agree(to_client, from_server);
    }
    if let Ok(hello) = ClientHello::parse(input.chunk()) {
        let _ = hello.version();
        hello.srtp_profiles().count();
    }
}

fn identity(speaks: u8) -> Arc<DtlsIdentity> {
    let identity = DtlsIdentity::generate().expect("an identity");
    Arc::new(match speaks {
        1 => identity.speaking_only(DtlsVersion::Dtls12),
        2 => identity.speaking_only(DtlsVersion::Dtls13),
        _ => identity,
    })
}

fn pass(input: &mut Input<'_>, now: Instant, datagrams: Vec<Vec<u8>>, to: &mut Side) {
    for mut datagram in datagrams {
        match input.byte() % 16 {
            1 => {}
            2 => {
                to.receive(now, &datagram);
                to.receive(now, &datagram);
            }
            3 => {
                to.receive(now, input.chunk());
                to.receive(now, &datagram);
            }
            4 | 5 => {
                let good = datagram.clone();
                damage(input, &mut datagram);
                to.receive(now, &datagram);
                to.receive(now, &good);
            }
            6 | 7 => {
                damage(input, &mut datagram);
                to.receive(now, &datagram);
            }
            8 => {
                // A handshake message in two fragments, the second of them first.
                for fragment in split(&datagram, input.byte().into()).iter().rev() {
                    to.receive(now, fragment);
                }
            }
            _ => to.receive(now, &datagram),
        }
    }
}

/// Cuts the first handshake message of a clear record in two (RFC 6347 §4.2.3).
fn split(datagram: &[u8], at: usize) -> Vec<Vec<u8>> {
    const HEADERS: usize = 13 + 12;
    let Some((head, body)) = datagram.split_at_checked(HEADERS).filter(|(head, body)| head[0] == 22 && body.len() > 1)
    else {
        return vec![datagram.to_vec()];
    };
    let at = 1 + at % (body.len() - 1);
    [(0, &body[..at]), (at, &body[at..])]
        .map(|(offset, piece)| {
            let mut record = head.to_vec();
            record[11..13].copy_from_slice(&((piece.len() + 12) as u16).to_be_bytes());
            record[12 + 13 - 6..12 + 13 - 3].copy_from_slice(&(offset as u32).to_be_bytes()[1..]);
            record[12 + 13 - 3..].copy_from_slice(&(piece.len() as u32).to_be_bytes()[1..]);
            // Its own record number, or it would be taken for a replay.
            record[10] = record[10].wrapping_add(if offset == 0 { 100 } else { 101 });
            record.extend(piece);
            record
        })
        .to_vec()
}

fn talk(input: &mut Input<'_>, side: &mut Side) {
    if side.failed || side.keys.is_none() {
        return;
    }
    match input.byte() % 4 {
        1 => drop(side.dtls.send(input.short())),
        2 => side.dtls.close(),
        _ => return,
    }
    side.drive();
}

/// What one seals the other opens.
fn agree(local: &MasterKey, remote: &MasterKey) {
    assert_eq!(local.profile(), remote.profile());
    let mut packet = vec![0x80; 40];
    let sealed = RtpSealer::new(local).seal_in_place(0, &mut packet, 12, 20);
    assert!(RtpOpener::new(remote).open(&mut packet[..sealed], 12).is_ok(), "two sides with different keys");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let lost = [9, 1, 9, 9, 20, 0, 0, 9, 9, 9];
    let doubled = [2; 12];
    let damaged = [4, 0, 15, 1, 3, 5, 0, 30, 2, 9, 9, 6, 0, 60, 0, 7];
    let split = [8, 20, 8, 40, 8, 60, 8, 80, 8, 100, 8, 120];
    let alert = [vec![9, 3], chunk(&[21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40])].concat();
    let talk = [9, 9, 9, 9, 9, 9, 1, 3, 1, 2, 3, 1, 2, 5, 5, 9, 9, 2, 0];
    let decisions: [&[u8]; 7] = [&[], &lost, &doubled, &damaged, &split, &alert, &talk];
    let versions = [0, 1, 2, 1 << 2, 2 << 2];
    versions.iter().flat_map(|versions| decisions.map(|rest| [&[*versions], rest].concat())).collect()
}
