//! Jute, the encoding of ZooKeeper's protocol: big-endian numbers, and bytes with their length before them.

/// Something is being written.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn int(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn long(mut self, value: i64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn flag(mut self, value: Flag) -> Self {
        self.0.push(value as u8);
        self
    }

    pub(super) fn bytes(mut self, value: &[u8]) -> Self {
        self = self.int(length(value.len()));
        self.0.extend(value);
        self
    }

    pub(super) fn text(self, value: &str) -> Self {
        self.bytes(value.as_bytes())
    }

    /// What is encoded already.
    pub(super) fn raw(mut self, value: &[u8]) -> Self {
        self.0.extend(value);
        self
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// A truth value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flag {
    No = 0,
    Yes = 1,
}

/// Nothing that is sent is anywhere near the largest length.
pub(super) fn length(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

/// What is there is not what has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbled;

/// Something is being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Garbled)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        self.take(N)?.try_into().map_err(|_| Garbled)
    }

    pub(super) fn int(&mut self) -> Result<i32, Garbled> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Result<i64, Garbled> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn flag(&mut self) -> Result<Flag, Garbled> {
        Ok(if self.take(1)? == [0] { Flag::No } else { Flag::Yes })
    }

    /// No bytes at all, whose length is -1, are as good as none.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Garbled> {
        let length = self.int()?;
        if length == -1 {
            return Ok(&[]);
        }
        self.take(usize::try_from(length).map_err(|_| Garbled)?)
    }

    pub(super) fn text(&mut self) -> Result<String, Garbled> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| Garbled)
    }

    pub(super) fn texts(&mut self) -> Result<Vec<String>, Garbled> {
        // Not reserved: the count may be anything.
        (0..self.int()?.max(0)).map(|_| self.text()).collect()
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// What is known of a node beside its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// How often its data has been changed.
    pub(super) version: i32,
    /// The session that it ends with; 0 where it stays.
    pub(super) owner: i64,
}

impl Stat {
    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Garbled> {
        let (_created, _modified) = (from.long()?, from.long()?);
        let (_created_at, _modified_at) = (from.long()?, from.long()?);
        let (version, _of_children, _of_access) = (from.int()?, from.int()?, from.int()?);
        let owner = from.long()?;
        let (_length, _children, _children_changed) = (from.int()?, from.int()?, from.long()?);
        Ok(Self { version, owner })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let bytes = Writer::default()
            .int(-2)
            .long(i64::MIN)
            .flag(Flag::Yes)
            .text("ä€")
            .bytes(&[])
            .int(2)
            .text("a")
            .text("b")
            .raw(&[7])
            .finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.int(), reader.long(), reader.flag()), (Ok(-2), Ok(i64::MIN), Ok(Flag::Yes)));
        assert_eq!((reader.text(), reader.bytes()), (Ok("ä€".to_owned()), Ok(&[][..])));
        assert_eq!(reader.texts(), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(reader.rest(), [7]);
        assert_eq!(Reader::new(&[255; 4]).bytes(), Ok(&[][..]));
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_breaks_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Reader::new(&bytes).texts();
            let _ = Reader::new(&bytes).bytes();
            let _ = Stat::read(&mut Reader::new(&bytes));
        }
    }
}
