{{/* At most 14 characters: with a pod's suffix it is the name of a gateway's log, which has 31. */}}
{{- define "exeat.name" -}}
{{- .Release.Name | trunc 14 | trimSuffix "-" -}}
{{- end -}}

{{- define "exeat.selector" -}}
app.kubernetes.io/name: exeat
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "exeat.labels" -}}
{{ include "exeat.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "exeat.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "exeat.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
# Not Always: that would open the keys to the group at every start, and exeat refuses such keys.
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "exeat.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "exeat.image.lines" -}}
image: {{ include "exeat.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{/* A JSON string, number, boolean or list of strings is the same in TOML. */}}
{{- define "exeat.toml" -}}
host = "0.0.0.0"
port = 8717
{{- $name := include "exeat.name" . }}
{{- $hosts := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) }}
allowed_hosts = {{ concat $hosts .Values.allowedHosts | toJson }}
{{- if .Values.tls.existingSecret }}
tls_certificate = "/run/exeat-tls/tls.crt"
tls_key = "/run/exeat-tls/tls.key"
{{- end }}
{{- range $key, $value := .Values.settings }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{- end -}}

{{/* The home is a folder in the volume, so that it is 0700 and `exeat restore` finds it empty. */}}
{{- define "exeat.env" -}}
- {name: EXEAT_HOME, value: /var/lib/exeat/home}
{{- if eq .Values.mode "postgresql" }}
- name: EXEAT_INSTANCE
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{ include "exeat.databaseEnv" . }}
{{- end }}
{{- end -}}

{{/* Makes the home, then puts settings and keys into it, readable by the gateway alone. */}}
{{- define "exeat.initContainer" -}}
name: init
{{ include "exeat.image.lines" . }}
command:
  - sh
  - -ceu
  - |
    umask 077
    {{- if eq .Values.mode "sqlite" }}
    test -e "$EXEAT_HOME/operator" || exeat init --me "$FIRST_PERSON"
    {{- end }}
    mkdir -p "$EXEAT_HOME/keys"
    put() { for each in "$1"/*; do cat "$each" > "$2/${each##*/}"; done; }  # not cp: it keeps 0440
    put /run/exeat-config "$EXEAT_HOME"
    {{- if .Values.keys.existingSecret }}
    put /run/exeat-keys "$EXEAT_HOME/keys"
    {{- end }}
securityContext:
  {{- include "exeat.containerSecurity" . | nindent 2 }}
env:
  - {name: EXEAT_HOME, value: /var/lib/exeat/home}
  - {name: FIRST_PERSON, value: {{ .Values.firstPerson | quote }}}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - {name: home, mountPath: /var/lib/exeat}
  - {name: tmp, mountPath: /tmp}
  - {name: config, mountPath: /run/exeat-config, readOnly: true}
  {{- if .Values.keys.existingSecret }}
  - {name: keys, mountPath: /run/exeat-keys, readOnly: true}
  {{- end }}
{{- end -}}

{{- define "exeat.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
- name: config
  configMap: {name: {{ include "exeat.name" . }}}
{{- with .Values.keys.existingSecret }}
- name: keys
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- with .Values.tls.existingSecret }}
- name: tls
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{/* A change of settings starts new pods. */}}
{{- define "exeat.podAnnotations" -}}
exeat/settings: {{ include "exeat.toml" . | sha256sum }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "exeat.probe" -}}
port: mcp
scheme: {{ if .Values.tls.existingSecret }}HTTPS{{ else }}HTTP{{ end }}
httpHeaders: [{name: Host, value: localhost}]
{{- end -}}

{{- define "exeat.databaseEnv" -}}
- name: EXEAT_DATABASE_URL
  valueFrom:
    secretKeyRef: {name: {{ .Values.postgresql.existingSecret | quote }}, key: {{ .Values.postgresql.key | quote }}}
{{- end -}}

{{- define "exeat.container" -}}
name: exeat
{{ include "exeat.image.lines" . }}
args: [up]
securityContext:
  {{- include "exeat.containerSecurity" . | nindent 2 }}
ports:
  - {name: mcp, containerPort: 8717, protocol: TCP}
env:
  {{- include "exeat.env" . | nindent 2 }}
{{- with .Values.serverSecrets }}
envFrom:
  {{- range . }}
  - secretRef: {name: {{ . | quote }}}
  {{- end }}
{{- end }}
# The Host header must be one that the gateway serves.
startupProbe:
  httpGet:
    path: /healthz
    {{- include "exeat.probe" . | nindent 4 }}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /healthz
    {{- include "exeat.probe" . | nindent 4 }}
  periodSeconds: 10
  timeoutSeconds: 3
readinessProbe:
  httpGet:
    path: /readyz
    {{- include "exeat.probe" . | nindent 4 }}
  periodSeconds: 5
  timeoutSeconds: 3
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - {name: home, mountPath: /var/lib/exeat}
  - {name: tmp, mountPath: /tmp}
  {{- if .Values.tls.existingSecret }}
  - {name: tls, mountPath: /run/exeat-tls, readOnly: true}
  {{- end }}
{{- end -}}

{{- define "exeat.podCommon" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 30
securityContext:
  {{- include "exeat.podSecurity" . | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
