{{/* The sidecar that runs the hooks of sources. */}}

{{- define "trellis.hooks.endpoint" -}}
{{- if .Values.hooks.token.existingSecret }}http://localhost:{{ int .Values.hooks.port }}{{ else }}unix:///run/trellis/hooks.sock{{ end -}}
{{- end }}

{{- define "trellis.hooks.image" -}}
{{- with .Values.hooks.image }}
{{- if not .repository }}{{ include "trellis.image" $ }}
{{- else if hasPrefix "sha256:" .tag }}{{ .repository }}@{{ .tag }}
{{- else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{/* What both containers mount: the whitelist is judged on both sides. A folder, not a file of it: only that follows changes. */}}
{{- define "trellis.hooks.mounts" -}}
- name: whitelist
  mountPath: /etc/hooks
  readOnly: true
{{- if .Values.hooks.token.existingSecret }}
- name: hook-token
  mountPath: /etc/hooks-token
  readOnly: true
{{- else }}
- name: hook-socket
  mountPath: /run/trellis
{{- end }}
{{- end }}

{{/* A container that starts before the operator's and ends after it, so that a run is never cut by the order of ends. */}}
{{- define "trellis.hooks.container" -}}
{{- $hooks := .Values.hooks -}}
- name: hooks
  image: {{ include "trellis.hooks.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  restartPolicy: Always
  args:
    - hooks
    {{- if $hooks.token.existingSecret }}
    - --port={{ int $hooks.port }}
    - --token-file=/etc/hooks-token/token
    {{- else }}
    - --socket=/run/trellis/hooks.sock
    {{- end }}
    - --whitelist=/etc/hooks/whitelist.yaml
    - --work=/var/spool/hooks
    - --network={{ $hooks.network }}
    - --at-once={{ int $hooks.atOnce }}
    - --queue={{ int $hooks.queue }}
    - --patience={{ $hooks.patience }}
    - --default-timeout={{ $hooks.defaultTimeout }}
    {{- with $hooks.path }}
    - --path={{ join "," . }}
    {{- end }}
    {{- with $hooks.env }}
    - --pass={{ keys . | sortAlpha | join "," }}
    {{- end }}
    - --limit-cpu-seconds={{ int64 $hooks.limits.cpuSeconds }}
    - --limit-memory={{ int64 $hooks.limits.memory }}
    - --limit-files={{ int64 $hooks.limits.files }}
    - --limit-file-size={{ int64 $hooks.limits.fileSize }}
    - --limit-processes={{ int64 $hooks.limits.processes }}
    - --limit-user-processes={{ int64 $hooks.limits.userProcesses }}
    - --limit-stdin={{ int64 $hooks.limits.stdin }}
    - --limit-stdout={{ int64 $hooks.limits.stdout }}
    - --limit-stderr={{ int64 $hooks.limits.stderr }}
    - --log={{ .Values.log.format }}
  env:
    - name: RUST_LOG
      value: {{ .Values.log.level | quote }}
    {{- range $name, $value := $hooks.env }}
    - name: {{ $name }}
      value: {{ $value | quote }}
    {{- end }}
  volumeMounts:
    {{- include "trellis.hooks.mounts" . | nindent 4 }}
    - name: hook-work
      mountPath: /var/spool/hooks
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop: [ALL]
  {{- with $hooks.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
