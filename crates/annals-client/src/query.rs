//! Rows and pages of read models.

use http::header::HeaderValue;
use http::{HeaderMap, Method};
use reqwest::Url;
use serde_json::Value;

use crate::client::{Client, Prepared};
use crate::error::Error;
use crate::response::Response;

/// What is asked of a read model.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Parameters as they go into the address: `("total.gte", "100")`. Names may repeat.
    pub parameters: Vec<(String, String)>,
    /// Positions that the answer must be at least as fresh as: `3:1042`.
    pub after: Vec<String>,
    /// How long the server may wait for that, in seconds; `None`: as the server has it.
    pub wait_s: Option<u32>,
}

impl Query {
    /// The same with one more parameter.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// The same, at least as fresh as this position, or these with commas.
    #[must_use]
    pub fn after(mut self, position: impl Into<String>) -> Self {
        self.after.push(position.into());
        self
    }

    /// The same, waiting at most so many seconds for freshness.
    #[must_use]
    pub fn wait_s(mut self, seconds: u32) -> Self {
        self.wait_s = Some(seconds);
        self
    }
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Page {
    /// Its rows.
    pub rows: Vec<Value>,
    /// The cursor of the next one; `None`: this is the last.
    pub next: Option<String>,
    /// The positions that it is true at.
    pub position: Option<String>,
    /// How many rows there are, if that was asked for.
    pub count: Option<u64>,
}

impl Client {
    /// Asks for a row, or with `key` `None` for a page of a list.
    ///
    /// # Errors
    /// [`Error`]; 404 is an answer.
    pub async fn get(&self, resource: &str, key: Option<&str>, query: &Query) -> Result<Response, Error> {
        let mut url = self.path(["v1", resource].into_iter().chain(key))?;
        add_parameters(&mut url, &query.parameters);
        let mut headers = HeaderMap::new();
        if !query.after.is_empty() {
            let after = HeaderValue::from_str(&query.after.join(", "))
                .map_err(|_| Error::Unsendable { what: "the position" })?;
            headers.insert("annals-after", after);
        }
        if let Some(seconds) = query.wait_s {
            let wait = HeaderValue::from_str(&format!("wait={seconds}"));
            headers.insert("prefer", wait.expect("digits are fit for a header"));
        }
        let prepared = Prepared {
            method: Method::GET,
            url,
            headers,
            body: bytes::Bytes::new(),
        };
        self.execute(prepared).await
    }

    /// A page of a list. The outer error is no answer, the inner one an answer that is no page.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn page(
        &self,
        resource: &str,
        query: &Query,
        cursor: Option<&str>,
    ) -> Result<Result<Page, Response>, Error> {
        let mut query = query.clone();
        if let Some(cursor) = cursor {
            query = query.with("cursor", cursor);
        }
        let response = self.get(resource, None, &query).await?;
        if !response.status.is_success() {
            return Ok(Err(response));
        }
        page(&response).map(Ok)
    }

    /// Every row of a list, page after page, given to `each`; `Some` is the answer that ended it early.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list(
        &self,
        resource: &str,
        query: &Query,
        mut each: impl FnMut(Value),
    ) -> Result<Option<Response>, Error> {
        let mut cursor: Option<String> = None;
        loop {
            let page = match self.page(resource, query, cursor.as_deref()).await? {
                Ok(page) => page,
                Err(response) => return Ok(Some(response)),
            };
            page.rows.into_iter().for_each(&mut each);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(None),
            }
        }
    }
}

fn page(response: &Response) -> Result<Page, Error> {
    #[derive(serde::Deserialize)]
    struct Body {
        data: Vec<Value>,
        #[serde(default)]
        next: Option<String>,
        #[serde(default)]
        count: Option<u64>,
    }
    let body: Body = response.json()?;
    Ok(Page {
        rows: body.data,
        next: body.next,
        position: response.position().map(str::to_owned),
        count: body.count,
    })
}

fn add_parameters(url: &mut Url, parameters: &[(String, String)]) {
    if !parameters.is_empty() {
        url.query_pairs_mut().extend_pairs(parameters);
    }
}
