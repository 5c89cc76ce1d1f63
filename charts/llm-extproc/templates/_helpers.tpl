{{- define "extproc.name" -}}
{{- $both := printf "%s-%s" .Release.Name .Chart.Name }}
{{- ternary .Release.Name $both (contains "extproc" .Release.Name) | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "extproc.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "extproc.labels" -}}
{{ include "extproc.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "extproc.image" -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end }}
{{- end }}

{{- /* URL of a store with its password and certificate authority, files of the Secret. */}}
{{- define "extproc.store" -}}
{{- $options := list }}
{{- with .passwordKey }}{{ $options = append $options (printf "password=file:/run/secrets/extproc/%s" .) }}{{ end }}
{{- with .sslmode }}{{ $options = append $options (printf "sslmode=%s" .) }}{{ end }}
{{- with .caKey }}{{ $options = append $options (printf "%s=/run/secrets/extproc/%s" $.caOption .) }}{{ end }}
{{- .url }}{{ if $options }}?{{ join "&" $options }}{{ end }}
{{- end }}

{{- /* The settings: the text of the values as it is, and the sections of the pod that it leaves out. It is parsed here only to
read those sections: Helm's YAML takes the key `on` for true. */}}
{{- define "extproc.settings" -}}
{{- $text := .Values.gateway }}
{{- $given := fromYaml $text }}
{{- with $given.Error }}{{ fail (printf "gateway is not YAML: %s" .) }}{{ end }}
{{- if not (or $given.mcp (and $given.providers $given.models)) }}
{{- fail "gateway needs providers and models, or mcp: helm install … --set-file gateway=gateway.yaml" }}
{{- end }}
{{- $admin := dict "address" "127.0.0.1" "port" 9091 }}
{{- with .Values.admin.tokenKey }}
{{- $admin = dict "address" "0.0.0.0" "port" 9091 "token" (printf "file:/run/secrets/extproc/%s" .) }}
{{- end }}
{{- $listener := dict "address" "0.0.0.0" "port" 10000 }}
{{- if .Values.tls.enabled }}
{{- $_ := set $listener "tls" (dict "certificate" "file:/run/tls/tls.crt" "key" "file:/run/tls/tls.key") }}
{{- end }}
{{- $stores := dict "counters" "sqlite:/var/lib/extproc/counters.db" "ledger" "sqlite:/var/lib/extproc/ledger.db" }}
{{- with .Values.redis }}{{ if .url }}{{ $_ := set $stores "counters" (include "extproc.store" (merge (dict "caOption" "ca") .)) }}{{ end }}{{ end }}
{{- with .Values.postgresql }}{{ if .url }}{{ $_ := set $stores "ledger" (include "extproc.store" (merge (dict "caOption" "sslrootcert") .)) }}{{ end }}{{ end }}
{{- with .Values.ledgerKeep }}{{ $_ := set $stores "ledger_keep" . }}{{ end }}
{{- $pod := dict
  "listener" $listener
  "status" (dict "address" "0.0.0.0" "port" 9090)
  "admin" $admin
  "processor" (dict "socket" "/run/extproc/extproc.sock")
  "stores" $stores }}
{{- $ports := dict "listener" 10000 "status" 9090 "admin" 9091 }}
{{- range $section, $port := $ports }}
{{- with index $given $section }}
{{- if ne (int (.port | default $port)) $port }}{{ fail (printf "gateway: %s.port is %d in the chart's pods" $section $port) }}{{ end }}
{{- if and (ne $section "admin") (has (.address | default "0.0.0.0") (list "127.0.0.1" "localhost" "::1")) }}
{{- fail (printf "gateway: %s.address is loopback, which no other pod reaches: use 0.0.0.0" $section) }}
{{- end }}
{{- end }}
{{- end }}
{{- if ne (($given.processor | default dict).socket | default "/run/extproc/extproc.sock") "/run/extproc/extproc.sock" }}
{{- fail "gateway: processor.socket is /run/extproc/extproc.sock in the chart's pods" }}
{{- end }}
{{- $twice := dict
  "stores" (or .Values.redis.url .Values.postgresql.url .Values.ledgerKeep)
  "listener" (and .Values.tls.enabled (not ($given.listener | default dict).tls))
  "admin" (and .Values.admin.tokenKey (not ($given.admin | default dict).token))
  "processor" (and (ne (toString .Values.workers) "auto") ($given.processor | default dict).workers) }}
{{- range $section, $set := $twice }}
{{- if and $set (hasKey $given $section) }}
{{- fail (printf "gateway has the section %s, which values of the chart set, too: leave one of them out" $section) }}
{{- end }}
{{- end }}
{{- $text | trimSuffix "\n" }}
{{- range $section, $content := $pod }}
{{- if not (hasKey $given $section) }}
{{ toYaml (dict $section $content) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* "yes" where counters and ledger are in stores that several pods share. */}}
{{- define "extproc.fleet" -}}
{{- $stores := (include "extproc.settings" . | fromYaml).stores }}
{{- if and (hasPrefix "redis" ($stores.counters | default "")) (hasPrefix "postgresql" ($stores.ledger | default "")) }}yes{{ end }}
{{- end }}

{{- /* The number of workers, the same in both containers. By default it is the processor's CPU limit; without a limit
its request, because Kubernetes would give the cores of the node. */}}
{{- define "extproc.workers" -}}
- name: EXTPROC_WORKERS
  {{- if eq (toString .Values.workers) "auto" }}
  valueFrom: {resourceFieldRef: {containerName: processor, resource: {{ if (.Values.resources.processor.limits | default dict).cpu }}limits{{ else }}requests{{ end }}.cpu}}
  {{- else }}
  value: {{ .Values.workers | quote }}
  {{- end }}
{{- end }}

{{- define "extproc.restricted" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "extproc.tlsSecret" -}}
{{ .Values.tls.secretName | default (printf "%s-tls" (include "extproc.name" .)) }}
{{- end }}
