//! The part of the LFS API a download needs.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;

use crate::git::Project;
use crate::state::Shared;

const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";
const MAX_BATCH_BYTES: usize = 1 << 20;

/// `POST info/lfs/objects/batch`.
pub(crate) async fn batch(shared: &Arc<Shared>, project: &Project, request: Request) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION).cloned();
    let authorization = authorization.as_ref().and_then(|value| value.to_str().ok());
    let Ok(body) = axum::body::to_bytes(request.into_body(), MAX_BATCH_BYTES).await else {
        return answer(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "message": "the batch is too large" }));
    };
    let Ok(batch) = serde_json::from_slice::<Value>(&body) else {
        return answer(StatusCode::BAD_REQUEST, &json!({ "message": "the batch is not JSON" }));
    };
    if batch["operation"] != "download" {
        let text = json!({ "message": "a job token may not upload" });
        return answer(StatusCode::FORBIDDEN, &text);
    }
    let objects: Vec<Value> = batch["objects"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|object| {
            let oid = object["oid"].as_str().unwrap_or_default();
            let known = is_oid(oid) && project.lfs_objects().join(oid).is_file();
            if !known {
                let error = json!({ "code": 404, "message": "Object does not exist on the server" });
                return json!({ "oid": oid, "size": object["size"], "error": error });
            }
            let href = format!("{}/{}.git/gitlab-lfs/objects/{oid}", shared.settings.url, project.path);
            let mut download = json!({ "href": href });
            if let Some(authorization) = authorization {
                download["header"] = json!({ "Authorization": authorization });
            }
            json!({
                "oid": oid,
                "size": object["size"],
                "authenticated": true,
                "actions": { "download": download },
            })
        })
        .collect();
    answer(StatusCode::OK, &json!({ "transfer": "basic", "objects": objects, "hash_algo": "sha256" }))
}

/// `GET gitlab-lfs/objects/<oid>`.
pub(crate) async fn object(project: &Project, oid: &str) -> Response {
    let file =
        if is_oid(oid) { tokio::fs::File::open(project.lfs_objects().join(oid)).await.ok() } else { None };
    match file {
        Some(file) => {
            let body = Body::from_stream(ReaderStream::new(file));
            ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response()
        }
        None => answer(StatusCode::NOT_FOUND, &json!({ "message": "no such object" })),
    }
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body.to_string()).into_response()
}

/// Anything else must not become a file name.
fn is_oid(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
