//! As much of ZooKeeper's protocol as it takes to look at nodes, and to make and delete some.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A session of somebody else.
pub(crate) struct Client(TcpStream);

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) data: String,
    /// The session that it ends with.
    pub(crate) owner: i64,
}

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const DATA: i32 = 4;
const CHILDREN: i32 = 8;
const NO_NODE: i32 = -101;

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let mut client = Self(TcpStream::connect(address)?);
        let hello = [&[0; 12][..], &10_000_i32.to_be_bytes(), &[0; 8], &bytes(&[0; 16]), &[0]].concat();
        client.0.write_all(&bytes(&hello))?;
        client.frame()?;
        Ok(client)
    }

    pub(crate) fn node(&mut self, path: &str) -> Option<Node> {
        let answer = self.ask(DATA, &[&text(path), &[0]]).ok()?;
        let (data, stat) = split(&answer);
        // Behind four numbers of 8 bytes and three of 4.
        let owner = i64::from_be_bytes(stat[44..52].try_into().unwrap());
        Some(Node { data: String::from_utf8(data.to_vec()).unwrap(), owner })
    }

    /// The names of a node's children, sorted.
    pub(crate) fn children(&mut self, path: &str) -> Vec<String> {
        let Ok(answer) = self.ask(CHILDREN, &[&text(path), &[0]]) else { return Vec::new() };
        let (count, mut rest) = (number(&answer), &answer[4..]);
        let mut names = Vec::new();
        for _ in 0..count {
            let (name, after) = split(rest);
            names.push(String::from_utf8(name.to_vec()).unwrap());
            rest = after;
        }
        names.sort();
        names
    }

    /// One that stays, and that everybody may read and nobody change.
    #[track_caller]
    pub(crate) fn create_readable(&mut self, path: &str) {
        self.create(path, "", 1, 0).unwrap();
    }

    /// One that ends with this session, and is everybody's.
    #[track_caller]
    pub(crate) fn create_ephemeral(&mut self, path: &str, data: &str) {
        self.create(path, data, 31, 1).unwrap();
    }

    /// One that stays, and is everybody's.
    #[track_caller]
    pub(crate) fn create_parent(&mut self, path: &str) {
        self.create(path, "", 31, 0).unwrap();
    }

    #[track_caller]
    pub(crate) fn delete(&mut self, path: &str) {
        self.ask(DELETE, &[&text(path), &(-1_i32).to_be_bytes()]).unwrap();
    }

    fn create(&mut self, path: &str, data: &str, permissions: i32, flags: i32) -> Result<Vec<u8>, i32> {
        let acl = [&1_i32.to_be_bytes()[..], &permissions.to_be_bytes(), &text("world"), &text("anyone")];
        self.ask(CREATE, &[&text(path), &text(data), &acl.concat(), &flags.to_be_bytes()])
    }

    #[track_caller]
    fn ask(&mut self, kind: i32, body: &[&[u8]]) -> Result<Vec<u8>, i32> {
        let request = [&1_i32.to_be_bytes()[..], &kind.to_be_bytes(), &body.concat()].concat();
        self.0.write_all(&bytes(&request)).unwrap();
        let answer = self.frame().unwrap();
        match number(&answer[12..]) {
            0 => Ok(answer[16..].to_vec()),
            error => {
                assert!(error == NO_NODE || kind != DELETE, "{error}");
                Err(error)
            }
        }
    }

    fn frame(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.0.read_exact(&mut frame)?;
        Ok(frame)
    }
}

fn bytes(content: &[u8]) -> Vec<u8> {
    [&i32::try_from(content.len()).unwrap().to_be_bytes()[..], content].concat()
}

fn text(content: &str) -> Vec<u8> {
    bytes(content.as_bytes())
}

fn number(from: &[u8]) -> i32 {
    i32::from_be_bytes(from[..4].try_into().unwrap())
}

/// Bytes with their length before them, and what follows.
fn split(from: &[u8]) -> (&[u8], &[u8]) {
    from[4..].split_at(usize::try_from(number(from)).unwrap())
}
