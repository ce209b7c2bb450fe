{{/* What external-source needs beside the controllers: where artifacts are kept and served, and hooks. */}}

{{/* "true" when sources are served. */}}
{{- define "trellis.sources" -}}
{{- if has "external-source" .Values.controllers }}true{{ end -}}
{{- end }}

{{/* "true" when the hooks of sources can run. */}}
{{- define "trellis.hooks" -}}
{{- if and .Values.hooks.enabled (include "trellis.sources" .) }}true{{ end -}}
{{- end }}

{{/* "true" when every replica has the same artifacts, so that each can serve them. */}}
{{- define "trellis.sharedStorage" -}}
{{- $storage := .Values.storage -}}
{{- if or (eq $storage.backend "s3") (and (eq $storage.backend "disk") $storage.persistence.enabled (eq $storage.persistence.accessMode "ReadWriteMany")) }}true{{ end -}}
{{- end }}

{{- define "trellis.artifacts.name" -}}
{{ include "trellis.name" . }}-artifacts
{{- end }}

{{/* As Flux reaches the artifacts. The dot at the end of the host spares every search domain of resolv.conf. */}}
{{- define "trellis.artifacts.host" -}}
{{- $port := int .Values.artifacts.service.port -}}
{{ include "trellis.artifacts.name" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}.{{ if ne $port 80 }}:{{ $port }}{{ end }}
{{- end }}

{{/* Bytes of a quantity; 0 for one in another form, of which nothing is said then. */}}
{{- define "trellis.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $text := toString . -}}
{{- if regexMatch "^[0-9]+(k|M|G|T|Ki|Mi|Gi|Ti)?$" $text -}}
{{ mul (regexFind "^[0-9]+" $text | int64) (get $units (regexFind "[A-Za-z]*$" $text) | int64) }}
{{- else -}}
0
{{- end -}}
{{- end }}

{{/* Values that a schema cannot judge alone. */}}
{{- define "trellis.sources.check" -}}
{{- if include "trellis.sources" . }}
{{- if and (gt (int .Values.replicas) 1) (not (include "trellis.sharedStorage" .)) }}
{{- fail (printf "replicas is %d, and with storage.backend=%s only one replica has the artifacts: set replicas=1, or storage.backend=s3, or storage.persistence.enabled=true with accessMode=ReadWriteMany" (int .Values.replicas) .Values.storage.backend) }}
{{- end }}
{{- if and (eq .Values.storage.backend "s3") (not .Values.storage.s3.bucket) }}
{{- fail "storage.backend=s3 needs storage.s3.bucket" }}
{{- end }}
{{- if eq (int .Values.artifacts.port) (int .Values.metrics.port) }}
{{- fail (printf "artifacts.port and metrics.port are both %d: one Pod cannot listen twice" (int .Values.metrics.port)) }}
{{- end }}
{{- if and .Values.hooks.enabled .Values.hooks.token.existingSecret (has (int .Values.hooks.port) (list (int .Values.artifacts.port) (int .Values.metrics.port))) }}
{{- fail (printf "hooks.port is %d, as is artifacts.port or metrics.port: the containers of a Pod share their ports" (int .Values.hooks.port)) }}
{{- end }}
{{- if gt (int64 .Values.artifacts.maxBytes) (include "trellis.bytes" .Values.spool.sizeLimit | int64) }}
{{- fail (printf "artifacts.maxBytes is %d, which does not fit into spool.sizeLimit=%s: the Pod would be evicted; give the spool a few times artifacts.maxBytes" (int64 .Values.artifacts.maxBytes) .Values.spool.sizeLimit) }}
{{- end }}
{{- $spool := include "trellis.bytes" .Values.spool.sizeLimit | int64 }}
{{- if gt (int64 (.Values.spool.maxBytes | default 0)) $spool }}
{{- fail (printf "spool.maxBytes is %d, more than spool.sizeLimit=%s: the Pod would be evicted before anything waits" (int64 .Values.spool.maxBytes) .Values.spool.sizeLimit) }}
{{- end }}
{{- $memory := include "trellis.bytes" (((.Values.resources).limits).memory | default "") | int64 }}
{{- if and (eq .Values.storage.backend "memory") (gt $memory 0) (ge (int64 .Values.storage.memory.bytes) $memory) }}
{{- fail (printf "storage.memory.bytes is %d, and resources.limits.memory=%s: the operator would be killed before the storage is full" (int64 .Values.storage.memory.bytes) (toString .Values.resources.limits.memory)) }}
{{- end }}
{{- if and .Values.hooks.existingConfigMap .Values.hooks.whitelist.commands }}
{{- fail "hooks.existingConfigMap and hooks.whitelist.commands are both set: the ConfigMap is used alone; remove one" }}
{{- end }}
{{- if hasPrefix "source-watcher" (include "trellis.artifacts.name" .) }}
{{- fail "the name of the release starts with source-watcher: Flux takes the artifacts of such a host for those of source-watcher" }}
{{- end }}
{{- if and .Values.hooks.enabled (not .Values.hooks.existingConfigMap) (not .Values.hooks.whitelist.commands) }}
{{- fail "hooks.enabled needs hooks.whitelist.commands or hooks.existingConfigMap: without a whitelist nothing may run" }}
{{- end }}
{{- else if .Values.hooks.enabled }}
{{- fail "hooks.enabled needs external-source in controllers: only sources have hooks" }}
{{- end }}
{{- end }}

{{/* Arguments of the operator. */}}
{{- define "trellis.sources.arguments" -}}
{{- with .Values.storage }}
- --storage-backend={{ .backend }}
{{- if eq .backend "disk" }}
- --storage-path={{ .path }}
{{- if include "trellis.sharedStorage" $ }}
- --storage-shared
{{- end }}
{{- end }}
{{- if and (eq .backend "s3") .s3.ca.existingSecret }}
- --s3-ca-file=/etc/storage-ca/ca.crt
{{- end }}
{{- if eq .backend "memory" }}
- --storage-memory={{ int64 .memory.bytes }}
{{- end }}
{{- end }}
- --storage-addr=0.0.0.0:{{ int .Values.artifacts.port }}
- --storage-adv-addr={{ include "trellis.artifacts.host" . }}
- --spool-path=/var/spool/trellis
{{- with .Values.artifacts }}
- --artifact-retention-ttl={{ .retention.ttl }}
- --artifact-retention-records={{ int .retention.records }}
- --artifact-max-bytes={{ int64 .maxBytes }}
{{- end }}
{{- if .Values.allowInsecureTLS }}
- --allow-insecure-tls
{{- end }}
{{- with .Values.eventsAddr }}
- --events-addr={{ . }}
{{- end }}
{{- with .Values.egress }}
{{- with .schemes }}
- --egress-schemes={{ join "," . }}
{{- end }}
{{- with .allowHosts }}
- --egress-allow-host={{ join "," . }}
{{- end }}
{{- with .denyHosts }}
- --egress-deny-host={{ join "," . }}
{{- end }}
{{- with .trustHosts }}
- --egress-trust-host={{ join "," . }}
{{- end }}
{{- with .allowCIDRs }}
- --egress-allow-cidr={{ join "," . }}
{{- end }}
{{- with .denyCIDRs }}
- --egress-deny-cidr={{ join "," . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Variables of the operator: what may be left to its own defaults, and what is secret. */}}
{{- define "trellis.sources.environment" -}}
{{- $named := dict
      "HTTP_TIMEOUT" .Values.http.timeout
      "HTTP_MAX_IDLE_CONNS" .Values.http.maxIdleConns
      "HTTP_MAX_IDLE_CONNS_PER_HOST" .Values.http.maxIdleConnsPerHost
      "HTTP_MAX_CONNS_PER_HOST" .Values.http.maxConnsPerHost
      "HTTP_IDLE_CONN_TIMEOUT" .Values.http.idleConnTimeout
      "HTTP_LONGEST_HOLD" .Values.http.longestHold
      "HTTP_REQUESTS_PER_MINUTE" .Values.http.requestsPerMinute
      "HTTP_USER_AGENT" .Values.http.userAgent
      "HTTPS_PROXY" .Values.http.proxy.https
      "HTTP_PROXY" .Values.http.proxy.http
      "NO_PROXY" .Values.http.proxy.except
      "RETRY_MAX_ATTEMPTS" .Values.retry.maxAttempts
      "RETRY_BASE_DELAY" .Values.retry.baseDelay
      "RETRY_MAX_DELAY" .Values.retry.maxDelay
      "RETRY_JITTER_FACTOR" .Values.retry.jitterFactor -}}
{{- range $name, $value := $named }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
- name: {{ $name }}
  value: {{ toString $value | quote }}
{{- end }}
{{- end }}
- name: SPOOL_MAX_BYTES
  value: {{ .Values.spool.maxBytes | default (div (mul 3 (include "trellis.bytes" .Values.spool.sizeLimit | int64)) 4) | int64 | quote }}
{{- if include "trellis.hooks" . }}
- name: HOOK_EXECUTOR_ENDPOINT
  value: {{ include "trellis.hooks.endpoint" . }}
- name: HOOK_WHITELIST_PATH
  value: /etc/hooks/whitelist.yaml
- name: HOOK_AT_ONCE
  value: {{ int .Values.hooks.atOnce | quote }}
{{- if .Values.hooks.token.existingSecret }}
- name: HOOK_TOKEN_FILE
  value: /etc/hooks-token/token
{{- end }}
{{- end }}
{{- if eq .Values.storage.backend "s3" }}
{{- with .Values.storage.s3 }}
{{- with .endpoint }}
- name: S3_ENDPOINT
  value: {{ . | quote }}
{{- end }}
- name: S3_BUCKET
  value: {{ .bucket | quote }}
- name: S3_REGION
  value: {{ .region | quote }}
- name: S3_USE_SSL
  value: {{ .useSSL | quote }}
- name: S3_PATH_STYLE
  value: {{ .pathStyle | quote }}
{{- if .existingSecret.name }}
- name: S3_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret.name }}
      key: {{ .existingSecret.accessKeyIdKey }}
- name: S3_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret.name }}
      key: {{ .existingSecret.secretAccessKeyKey }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the operator's container mounts. */}}
{{- define "trellis.sources.mounts" -}}
- name: spool
  mountPath: /var/spool/trellis
{{- if eq .Values.storage.backend "disk" }}
- name: artifacts
  mountPath: {{ .Values.storage.path }}
{{- end }}
{{- if and (eq .Values.storage.backend "s3") .Values.storage.s3.ca.existingSecret }}
- name: storage-ca
  mountPath: /etc/storage-ca
  readOnly: true
{{- end }}
{{- if include "trellis.hooks" . }}
{{ include "trellis.hooks.mounts" . }}
- name: account
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}
{{- end }}

{{/* Volumes of the Pod. */}}
{{- define "trellis.sources.volumes" -}}
- name: spool
  emptyDir:
    sizeLimit: {{ .Values.spool.sizeLimit }}
{{- if eq .Values.storage.backend "disk" }}
- name: artifacts
  {{- if .Values.storage.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ .Values.storage.persistence.existingClaim | default (include "trellis.artifacts.name" .) }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .Values.storage.emptyDir.sizeLimit }}
  {{- end }}
{{- end }}
{{- if eq .Values.storage.backend "s3" }}
{{- with .Values.storage.s3.ca }}
{{- if .existingSecret }}
- name: storage-ca
  secret:
    secretName: {{ .existingSecret }}
    items:
      - key: {{ .key }}
        path: ca.crt
{{- end }}
{{- end }}
{{- end }}
{{- if include "trellis.hooks" . }}
- name: whitelist
  configMap:
    name: {{ .Values.hooks.existingConfigMap | default (printf "%s-hooks" (include "trellis.name" .)) }}
- name: account
  projected:
    sources:
      - serviceAccountToken:
          expirationSeconds: 3607
          path: token
      - configMap:
          name: kube-root-ca.crt
          items:
            - {key: ca.crt, path: ca.crt}
      - downwardAPI:
          items:
            - path: namespace
              fieldRef:
                fieldPath: metadata.namespace
- name: hook-work
  emptyDir:
    sizeLimit: {{ .Values.hooks.work.sizeLimit }}
{{- with .Values.hooks.token.existingSecret }}
- name: hook-token
  secret:
    secretName: {{ . }}
    items:
      - key: {{ $.Values.hooks.token.key }}
        path: token
{{- else }}
- name: hook-socket
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end }}
{{- end }}
{{- end }}
