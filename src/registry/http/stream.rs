use std::time::Duration;

use reqwest::{Request, Response, StatusCode};

use super::{Http, HttpCause, Kind, PATIENCE};

/// Longer than any answer lasts: there is no way to say "for ever".
const ENDLESS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// An answer that is read line by line, as it comes.
pub(in crate::registry) struct Stream {
    pub(in crate::registry) status: StatusCode,
    response: Response,
    /// What has come, and has not been handed out.
    rest: Vec<u8>,
    /// How much of that is known to have no end of a line in it.
    searched: usize,
}

impl Http {
    /// Sends a request whose answer may never end.
    pub(in crate::registry) async fn open(&self, mut request: Request) -> Result<Stream, HttpCause> {
        *request.timeout_mut() = Some(ENDLESS);
        let client = self.client(Kind::of(request.url())).await?;
        let response = client.execute(request).await.map_err(|error| HttpCause::of(&error, PATIENCE))?;
        Ok(Stream { status: response.status(), response, rest: Vec::new(), searched: 0 })
    }
}

impl Stream {
    /// The next line, without its end; none after the last. Can be dropped and called again, and loses nothing by it.
    ///
    /// # Errors
    /// When the connection breaks, or a line is longer than `longest` bytes.
    pub(in crate::registry) async fn line(&mut self, longest: usize) -> Result<Option<Vec<u8>>, HttpCause> {
        loop {
            if let Some(end) = self.rest[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.rest.split_off(self.searched + end + 1);
                let mut line = std::mem::replace(&mut self.rest, rest);
                self.searched = 0;
                line.pop();
                return Ok(Some(line));
            }
            self.searched = self.rest.len();
            if self.searched > longest {
                return Err(HttpCause::Nonsense(format!("it has a line of more than {longest} bytes")));
            }
            let chunk = self.response.chunk().await.map_err(|error| HttpCause::of(&error, PATIENCE))?;
            match chunk {
                Some(chunk) => self.rest.extend_from_slice(&chunk),
                None if self.rest.is_empty() => return Ok(None),
                // The last line may lack its end.
                None => {
                    self.searched = 0;
                    return Ok(Some(std::mem::take(&mut self.rest)));
                }
            }
        }
    }
}
