//! The bytes of an input as decisions. At the end of the bytes every decision is 0.

/// What is left of an input.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn long(&mut self) -> u32 {
        u32::from(self.word()) << 16 | u32::from(self.word())
    }

    /// A number below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// Bytes after their length, which takes one byte.
    pub(crate) fn short(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte());
        self.take(len)
    }

    /// Bytes after their length, which takes two bytes.
    pub(crate) fn chunk(&mut self) -> &'a [u8] {
        let len = usize::from(self.word());
        self.take(len)
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Writes what [`Input::chunk`] reads.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = (bytes.len() as u16).to_be_bytes().to_vec();
    chunk.extend(bytes);
    chunk
}

/// Damages a packet as the input says: a byte, its end, a piece of it.
pub(crate) fn damage(input: &mut Input<'_>, packet: &mut Vec<u8>) {
    if packet.is_empty() {
        return;
    }
    let at = usize::from(input.word()) % packet.len();
    match input.byte() % 5 {
        0 => packet[at] = input.byte(),
        1 => packet[at] ^= 1 << (input.byte() % 8),
        2 => packet.truncate(at),
        3 => {
            let piece = input.short();
            packet.splice(at..at, piece.iter().copied());
        }
        _ => {
            let piece = input.short();
            let end = packet.len().min(at + piece.len());
            packet[at..end].copy_from_slice(&piece[..end - at]);
        }
    }
}
