//! What a server is asked, and what it answers.

use super::wire::{Flag, Garbled, Reader, Stat, Writer};

/// A request, but for its number.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) body: Vec<u8>,
}

/// What kinds of requests there are, by their numbers in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Create = 1,
    Delete = 2,
    Exists = 3,
    GetData = 4,
    SetData = 5,
    Ping = 11,
    GetChildren = 8,
    Multi = 14,
    CreateContainer = 19,
    Auth = 100,
    CloseSession = -11,
}

/// How long a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasting {
    /// Until it is deleted.
    Persistent = 0,
    /// As long as the session that made it.
    Ephemeral = 1,
    /// Likewise, with a number of its own at the end of its name.
    Sequential = 3,
    /// As long as it has children.
    Container = 4,
}

/// Who may do what with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acl {
    /// Everybody everything.
    Open,
    /// Who made it everything, everybody else read it.
    Owned,
}

/// Whether the session is to be told when what was asked for changes.
pub(super) type Watched = Flag;

const READ: i32 = 1;
const EVERYTHING: i32 = 31;
/// Whatever version a node has.
pub(super) const ANY_VERSION: i32 = -1;

impl Request {
    fn new(kind: Kind, body: Writer) -> Self {
        Self { kind, body: body.finish() }
    }

    pub(super) fn create(path: &str, data: &[u8], acl: Acl, lasting: Lasting) -> Self {
        let body = Writer::default().text(path).bytes(data);
        let body = match acl {
            Acl::Open => body.int(1).int(EVERYTHING).text("world").text("anyone"),
            Acl::Owned => {
                body.int(2).int(EVERYTHING).text("auth").text("").int(READ).text("world").text("anyone")
            }
        };
        let kind = if lasting == Lasting::Container { Kind::CreateContainer } else { Kind::Create };
        Self::new(kind, body.int(lasting as i32))
    }

    pub(super) fn delete(path: &str, version: i32) -> Self {
        Self::new(Kind::Delete, Writer::default().text(path).int(version))
    }

    pub(super) fn exists(path: &str) -> Self {
        Self::new(Kind::Exists, Writer::default().text(path).flag(Flag::No))
    }

    pub(super) fn data(path: &str, watched: Watched) -> Self {
        Self::new(Kind::GetData, Writer::default().text(path).flag(watched))
    }

    pub(super) fn set(path: &str, data: &[u8], version: i32) -> Self {
        Self::new(Kind::SetData, Writer::default().text(path).bytes(data).int(version))
    }

    pub(super) fn children(path: &str, watched: Watched) -> Self {
        Self::new(Kind::GetChildren, Writer::default().text(path).flag(watched))
    }

    /// All of them, or none.
    pub(super) fn multi(requests: &[Self]) -> Self {
        let header = |body: Writer, kind: i32, done, error| body.int(kind).flag(done).int(error);
        let body = requests.iter().fold(Writer::default(), |body, request| {
            header(body, request.kind as i32, Flag::No, -1).raw(&request.body)
        });
        Self::new(Kind::Multi, header(body, -1, Flag::Yes, -1))
    }

    pub(super) fn ping() -> Self {
        Self::new(Kind::Ping, Writer::default())
    }

    pub(super) fn auth(scheme: &str, secret: &str) -> Self {
        Self::new(Kind::Auth, Writer::default().int(0).text(scheme).text(secret))
    }

    pub(super) fn close_session() -> Self {
        Self::new(Kind::CloseSession, Writer::default())
    }

    /// With the length at its front, as it goes over the wire.
    pub(super) fn frame(&self, number: i32) -> Vec<u8> {
        let body = Writer::default().int(number).int(self.kind as i32).raw(&self.body).finish();
        Writer::default().bytes(&body).finish()
    }
}

/// Why a server refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code(pub(super) i32);

impl Code {
    pub(super) const UNIMPLEMENTED: Self = Self(-6);
    pub(super) const BAD_ARGUMENTS: Self = Self(-8);
    pub(super) const NO_NODE: Self = Self(-101);
    pub(super) const NO_AUTH: Self = Self(-102);
    pub(super) const BAD_VERSION: Self = Self(-103);
    pub(super) const NODE_EXISTS: Self = Self(-110);
    pub(super) const NOT_EMPTY: Self = Self(-111);
    pub(super) const SESSION_EXPIRED: Self = Self(-112);
    pub(super) const INVALID_ACL: Self = Self(-114);
    pub(super) const AUTH_FAILED: Self = Self(-115);
    pub(super) const SESSION_MOVED: Self = Self(-118);

    pub(super) const AUTH_REQUIRED: Self = Self(-124);
    pub(super) const QUOTA_EXCEEDED: Self = Self(-125);

    /// Its name in ZooKeeper's own documentation.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::UNIMPLEMENTED => "Unimplemented",
            Self::BAD_ARGUMENTS => "BadArguments",
            Self::NO_NODE => "NoNode",
            Self::NO_AUTH => "NoAuth",
            Self::BAD_VERSION => "BadVersion",
            Self::NODE_EXISTS => "NodeExists",
            Self::NOT_EMPTY => "NotEmpty",
            Self::SESSION_EXPIRED => "SessionExpired",
            Self::INVALID_ACL => "InvalidACL",
            Self::AUTH_FAILED => "AuthFailed",
            Self::SESSION_MOVED => "SessionMoved",
            Self(-108) => "NoChildrenForEphemerals",
            Self(-119) => "NotReadOnly",
            Self::AUTH_REQUIRED => "SessionClosedRequireSaslAuth",
            Self::QUOTA_EXCEEDED => "QuotaExceeded",
            _ => "an error",
        }
    }
}

/// What is behind the header of an answer without an error.
pub(super) type Body = Vec<u8>;

pub(super) fn read_data(body: &[u8]) -> Result<(Vec<u8>, Stat), Garbled> {
    let mut reader = Reader::new(body);
    let data = reader.bytes()?.to_vec();
    Ok((data, Stat::read(&mut reader)?))
}

pub(super) fn read_stat(body: &[u8]) -> Result<Stat, Garbled> {
    Stat::read(&mut Reader::new(body))
}

pub(super) fn read_children(body: &[u8]) -> Result<Vec<String>, Garbled> {
    Reader::new(body).texts()
}

/// What came of one of several requests that were to be done all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Done {
    /// A node was made, of this name.
    Created(String),
    /// It was done.
    Other,
}

/// What came of several: of the first that failed, which it is and why.
pub(super) fn read_multi(body: &[u8]) -> Result<Result<Vec<Done>, (usize, Code)>, Garbled> {
    const ERROR: i32 = -1;
    let (mut reader, mut done) = (Reader::new(body), Vec::new());
    let mut failed = None;
    for index in 0.. {
        let (kind, end, _error) = (reader.int()?, reader.flag()?, reader.int()?);
        if end == Flag::Yes {
            break;
        }
        match kind {
            ERROR => note(&mut failed, index, reader.int()?),
            kind if kind == Kind::Create as i32 => done.push(Done::Created(reader.text()?)),
            kind if kind == Kind::SetData as i32 => {
                Stat::read(&mut reader)?;
                done.push(Done::Other);
            }
            kind if kind == Kind::Delete as i32 => done.push(Done::Other),
            _ => return Err(Garbled),
        }
    }
    Ok(failed.map_or(Ok(done), Err))
}

/// Those before the one that failed have no error, those after it the error -2, which says nothing.
fn note(failed: &mut Option<(usize, Code)>, index: usize, code: i32) {
    const INNOCENT: [i32; 2] = [0, -2];
    if failed.is_none() && !INNOCENT.contains(&code) {
        *failed = Some((index, Code(code)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_is_as_the_protocol_has_it() {
        assert_eq!(Request::ping().frame(-2), [0, 0, 0, 8, 255, 255, 255, 254, 0, 0, 0, 11]);
        let delete = Request::delete("/a", ANY_VERSION).frame(1);
        assert_eq!(delete, [0, 0, 0, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, b'/', b'a', 255, 255, 255, 255]);
    }

    #[test]
    fn of_several_the_one_that_failed_is_told() {
        let header = |kind| Writer::default().int(kind).flag(Flag::No).int(0);
        let end = Writer::default().int(-1).flag(Flag::Yes).int(-1).finish();
        let error = |code| header(-1).int(code).finish();
        let failed = [error(0), error(-110), error(-2), end.clone()].concat();
        assert_eq!(read_multi(&failed), Ok(Err((1, Code::NODE_EXISTS))));
        let done = [header(1).text("/a").finish(), header(2).finish(), end].concat();
        assert_eq!(read_multi(&done), Ok(Ok(vec![Done::Created("/a".to_owned()), Done::Other])));
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_breaks_the_reader(body in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read_multi(&body);
        }
    }
}
