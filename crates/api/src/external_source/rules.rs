//! CEL rules of `ExternalSource`, each with the message that the API server gives.
//!
//! Invariant: a value that is not even well formed fails one rule, with one message.

/// A rule and its message.
type Rule = (&'static str, &'static str);

/// One number and unit of a duration. The digits are bounded, so that no sum that fits the field overflows.
const PART: &str = r"([0-9]{1,9}([.][0-9]{1,9})?(ms|s)|[0-9]{1,7}([.][0-9]{1,9})?m|[0-9]{1,5}([.][0-9]{1,9})?h)";

/// A duration of Go, such as 1h30m, between two others.
fn between(min: &str, max: &str) -> String {
    format!("self.matches(r'^{PART}+$') && duration(self) >= duration('{min}') && duration(self) <= duration('{max}')")
}

/// Any interval that the older definition admitted, up to a year. What is below a minute is admitted and clamped.
pub(super) fn interval() -> String {
    between("0s", "8760h")
}

/// Message of [`interval`].
pub(super) const INTERVAL: &str = "must be a duration such as 5m, 1h30m or 90s, with units of ms, s, m and h, and at \
     most 8760h; an interval below 1m counts as 1m";

/// The longest that a hook may run.
pub(super) fn hook_timeout() -> String {
    between("1ms", "5m")
}

/// Message of [`hook_timeout`].
pub(super) const HOOK_TIMEOUT: &str =
    "must be a duration such as 30s or 1m30s, with units of ms, s and m, more than zero and at most 5m";

/// The longest that fetching may take.
pub(super) fn fetch_timeout() -> String {
    between("1s", "1h")
}

/// Message of [`fetch_timeout`].
pub(super) const FETCH_TIMEOUT: &str =
    "must be a duration such as 30s or 5m, with units of ms, s, m and h, at least 1s and at most 1h";

pub(super) const ONE_FORM_OF_TRANSFORMS: Rule = (
    "!has(self.transform) || !has(self.transforms) || size(self.transforms) == 0",
    "transform is the older form of transforms; write all of them into transforms",
);

pub(super) const MANIFESTS_END_IN_YAML: Rule = (
    "!has(self.output) || !(self.output.as in ['Manifest', 'ConfigMap', 'Secret']) || !has(self.destinationPath) \
     || self.destinationPath.matches(r'^$|/$|[.]ya?ml$')",
    "with output.as Manifest, ConfigMap or Secret, destinationPath must end in .yaml, .yml or a slash; Flux reads \
     manifests from no other files",
);

pub(super) const ARCHIVES_GO_INTO_A_FOLDER: Rule = (
    "!has(self.output) || self.output.as != 'Archive' || !has(self.destinationPath) \
     || self.destinationPath.matches(r'^$|/$')",
    "with output.as Archive, destinationPath is the folder into which the archive is unpacked; end it with a slash",
);

pub(super) const RELATIVE: Rule = (
    "!self.startsWith('/')",
    "must be relative to the root of the artifact; remove the leading slash",
);

pub(super) const NO_WAY_UP: Rule = (
    "!self.matches(r'(^|/)[.][.](/|$)')",
    "must stay inside the artifact; a path has no segment that is ..",
);

pub(super) const PLAIN_PATH: Rule = (
    r"!self.matches(r'[\x00-\x1f\x7f\\]')",
    "must not have backslashes and control characters; folders are separated by slashes",
);

pub(super) const CHECKSUM: Rule = (
    "self.matches(r'^sha256:[0-9a-f]{64}$')",
    "must be sha256: and 64 lower-case hexadecimal digits, as sha256sum prints them for the data as it is downloaded",
);

pub(super) const ONLY_HTTP: Rule = (
    "self.type != 'http' || (has(self.http) && !has(self.s3))",
    "type http needs the block http and no other; write the request into generator.http",
);

pub(super) const ONLY_S3: Rule = (
    "self.type != 's3' || (has(self.s3) && !has(self.http))",
    "type s3 needs the block s3 and no other; write the object's place into generator.s3",
);

pub(super) const SCHEME: Rule = (
    "self.matches('^(?i:https?)://')",
    "must begin with http:// or https://; other schemes are not fetched",
);

/// A URL with a host and a port that can be. What has no right scheme fails [`SCHEME`] alone.
pub(super) const HOST: Rule = (
    r"!self.matches('^(?i:https?)://') || (!self.matches(r'[\x00-\x20\x7f]') && isURL(self)
     && url(self).getHostname() != '' && (url(self).getPort() == '' || (size(url(self).getPort()) <= 5
     && int(url(self).getPort()) >= 1 && int(url(self).getPort()) <= 65535)))",
    "must be a URL with a host, without blanks, such as https://api.example.com/v1/config; blanks are written as %20",
);

pub(super) const NO_USER: Rule = (
    "!self.matches('^(?i:https?)://[^/?#]*@')",
    "must not hold a user name or password, which everybody who reads the object would see; put an Authorization \
     header into a Secret and name it in headersSecretRef",
);

/// Where an object store is: no path, no query.
pub(super) const ENDPOINT: Rule = (
    r"self.matches(r'^(?i:https?)://[^/?#@\s]+/?$') && isURL(self) && url(self).getHostname() != ''
     && (url(self).getPort() == '' || (size(url(self).getPort()) <= 5
     && int(url(self).getPort()) >= 1 && int(url(self).getPort()) <= 65535))",
    "must be http:// or https:// with a host and at most a port, such as https://minio.storage.svc:9000; bucket and \
     key have fields of their own",
);

pub(super) const BODY_NEEDS_A_METHOD: Rule = (
    "!has(self.body) || self.method in ['POST', 'PUT']",
    "a body is sent with method POST or PUT only; set method, or remove body",
);

pub(super) const NO_BUNDLE_WITHOUT_VERIFYING: Rule = (
    "!has(self.insecureSkipVerify) || !self.insecureSkipVerify || !has(self.caBundleSecretRef)",
    "caBundleSecretRef says whom to trust and insecureSkipVerify to trust everybody; remove one of them",
);

pub(super) const CERTIFICATE_NEEDS_TLS: Rule = (
    "!has(self.certSecretRef) || !self.url.matches('^(?i:http)://')",
    "certSecretRef acts in TLS only; the url must begin with https://",
);

pub(super) const MEDIA_TYPE: Rule = (
    "self.matches(r'^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+( *;[ -~]+)?$')",
    "must be a media type such as application/json, with parameters if need be",
);

pub(super) const BUCKET: Rule = (
    "self.matches('^[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z0-9]$')",
    "must be the name of a bucket: letters, digits, hyphens, dots and underscores, without a path",
);

pub(super) const REGION: Rule = (
    "self.matches('^[A-Za-z0-9-]+$')",
    "must be the name of a region, such as eu-central-1: letters, digits and hyphens",
);

pub(super) const OBJECT_NAME: Rule = (
    "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
    "must be the name of an object: lower-case letters, digits, hyphens and dots, with a letter or digit at both ends",
);

pub(super) const NAMESPACE: Rule = (
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "must be the name of a namespace: lower-case letters, digits and hyphens, with a letter or digit at both ends",
);

pub(super) const KEY: Rule = (
    "self.matches('^[-._a-zA-Z0-9]+$')",
    "must be a key of a Secret or ConfigMap: letters, digits, hyphens, underscores and dots",
);

pub(super) const HOOK_NAME: Rule = (
    "self.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",
    "must be letters, digits, hyphens, underscores and dots, with a letter or digit at both ends",
);

pub(super) const COMMAND: Rule = (
    "self.matches('^((/[A-Za-z0-9._+@-]+)+|[A-Za-z0-9._+@-]+)$') && !self.matches('(^|/)[.][.]?(/|$)')",
    "must be the name of a command or its absolute path, such as jq or /usr/bin/jq, without arguments, which go into \
     args",
);

pub(super) const VARIABLE: Rule = (
    "self.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
    "must be the name of a variable: letters, digits and underscores, not beginning with a digit",
);

pub(super) const NO_LOADER: Rule = (
    "!self.matches('^(PATH|ENV|BASH_ENV|BASH_FUNC_.*|IFS|SHELLOPTS|BASHOPTS|LD_.*)$')",
    "would decide which program runs, or what runs with it; PATH, ENV, IFS, LD_ and variables of bash cannot be set",
);

pub(super) const ONE_VALUE: Rule = (
    "has(self.value) != has(self.valueFrom)",
    "a variable needs exactly one of value and valueFrom",
);

pub(super) const OBJECT_FITS: Rule = (
    "(self.as in ['ConfigMap', 'Secret']) == has(self.object)",
    "output.object names the ConfigMap or Secret that is made; it is needed with as ConfigMap and as Secret, and has no \
     meaning otherwise",
);

pub(super) const ARCHIVE_FITS: Rule = (
    "!has(self.archive) || self.as == 'Archive'",
    "output.archive says how an archive is unpacked; it has a meaning only with as Archive",
);

pub(super) const INNER_PATH: Rule = (
    r"!self.startsWith('/') && !self.matches(r'(^|/)[.][.](/|$)|[\x00-\x1f\x7f\\]')",
    "must be a folder inside the archive: relative, without segments that are .. and without backslashes",
);
