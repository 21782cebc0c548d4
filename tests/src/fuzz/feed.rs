//! The fuzzer's bytes, read as decisions.

/// Bytes that are read as decisions, from the first to the last. Behind the last there are zeros, so every
/// input means something, and a program ends where its bytes do.
#[derive(Clone, Debug)]
pub struct Feed<'a>(&'a [u8]);

impl<'a> Feed<'a> {
    /// Reads these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left to read.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The next bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// As many of the next bytes as there are.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// A number below `end`, which is not zero: one byte where that is enough.
    pub fn below(&mut self, end: usize) -> usize {
        let number = match end {
            0..=0x100 => usize::from(self.byte()),
            _ => usize::from(u16::from_be_bytes(self.array())),
        };
        number % end
    }

    /// One of these.
    ///
    /// # Panics
    /// Where there are none.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Yes in one of so many cases, and never once the bytes are used up.
    pub fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) == cases - 1
    }

    /// Changes bytes in a few places: flips, cuts, leaves out, doubles, moves, puts in.
    pub fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            let to = (at + self.below(40)).min(bytes.len());
            match self.below(8) {
                0 | 1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                2 if at < bytes.len() => bytes[at] = self.byte(),
                3 => bytes.truncate(at),
                4 => drop(bytes.drain(at..to)),
                5 => {
                    let part = bytes[at..to].to_vec();
                    bytes.splice(at..at, part);
                }
                6 => {
                    let part: Vec<u8> = bytes.drain(at..to).collect();
                    let place = self.below(bytes.len() + 1);
                    bytes.splice(place..place, part);
                }
                _ => {
                    let len = self.below(16);
                    bytes.splice(at..at, self.take(len).iter().copied());
                }
            }
        }
    }
}
