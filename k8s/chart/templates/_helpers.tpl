{{- define "extproc.name" -}}
{{- $both := printf "%s-%s" .Release.Name (.Values.nameOverride | default .Chart.Name) }}
{{- $usual := ternary .Release.Name $both (and (not .Values.nameOverride) (contains "extproc" .Release.Name)) }}
{{- .Values.fullnameOverride | default $usual | replace "." "-" | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "extproc.selector" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "extproc.labels" -}}
{{ include "extproc.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "extproc.image" -}}
{{- with .registry }}{{ trimSuffix "/" . }}/{{ end }}
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
{{- include "extproc.given" (dict "given" $given "values" .Values) }}
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
{{- $whole := $text | trimSuffix "\n" }}
{{- range $section, $content := $pod }}
{{- if not (hasKey $given $section) }}{{ $whole = printf "%s\n%s" $whole (toYaml (dict $section $content)) }}{{ end }}
{{- end }}
{{- $parsed := fromYaml $whole }}
{{- range $section, $content := $pod }}
{{- if not (hasKey $parsed $section) }}
{{- fail "gateway: the chart adds sections at the end, so it must be one document in block style (no JSON), not indented, without ... at its end" }}
{{- end }}
{{- end }}
{{- $ledger := toString $parsed.stores.ledger }}
{{- if and (contains "sslmode=verify-" $ledger) (not (contains "sslrootcert=" $ledger)) }}
{{- fail "postgresql.sslmode verify-full needs postgresql.caKey, the key of the Secret with the certificate authority (in gateway: sslrootcert=): the pods have no other" }}
{{- end }}
{{- $whole }}
{{- end }}

{{- /* Refuses sections of the settings that do not fit the pod. */}}
{{- define "extproc.given" -}}
{{- $given := .given }}
{{- $values := .values }}
{{- range $section := list "listener" "status" "admin" "processor" "stores" }}
{{- if and (hasKey $given $section) (not (kindIs "map" (index $given $section))) }}
{{- fail (printf "gateway: %s must be a mapping; leave it out for that of the chart" $section) }}
{{- end }}
{{- end }}
{{- range $section, $port := dict "listener" 10000 "status" 9090 "admin" 9091 }}
{{- with index $given $section }}
{{- if ne (int (.port | default $port)) $port }}{{ fail (printf "gateway: %s.port is %d in the chart's pods" $section $port) }}{{ end }}
{{- if and (ne $section "admin") (regexMatch "^(127[.]|localhost$|::1$)" (toString (.address | default "0.0.0.0"))) }}
{{- fail (printf "gateway: %s.address is loopback, which no other pod reaches: use 0.0.0.0, or leave out the section" $section) }}
{{- end }}
{{- end }}
{{- end }}
{{- if ne (($given.processor | default dict).socket | default "/run/extproc/extproc.sock") "/run/extproc/extproc.sock" }}
{{- fail "gateway: processor.socket is /run/extproc/extproc.sock in the chart's pods" }}
{{- end }}
{{- with ($given.listener | default dict).tls }}
{{- if not $values.tls.enabled }}{{ fail "gateway has listener.tls: set the value tls.enabled, too, which mounts the certificate at /run/tls" }}{{ end }}
{{- range $name := list "certificate" "key" "client_ca" }}
{{- if not (hasPrefix "file:/run/tls/" (toString (index $.given.listener.tls $name | default "file:/run/tls/"))) }}
{{- fail (printf "gateway: listener.tls.%s is a file in /run/tls in the chart's pods, such as file:/run/tls/tls.crt" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if hasKey $given "stores" }}
{{- range $name := list "counters" "ledger" }}
{{- if not (index $given.stores $name) }}
{{- fail (printf "gateway: stores has no %s: name it, such as sqlite:/var/lib/extproc/%s.db, or leave out the section (the value ledgerKeep sets ledger_keep)" $name $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $store := $given.stores | default dict }}
{{- if and (hasPrefix "sqlite:/" (toString $store)) (not (hasPrefix "sqlite:/var/lib/extproc/" $store)) }}
{{- fail (printf "gateway: stores.%s is a file outside /var/lib/extproc, which the chart's pods cannot write" $name) }}
{{- end }}
{{- end }}
{{- with $given.stores }}
{{- if and (hasPrefix "redis" .counters) (hasPrefix "postgresql" .ledger) (hasPrefix "sqlite" (.cache | default "")) }}
{{- fail "gateway: stores.cache is a file, and the pods of a fleet have no volume: use memory: or a Redis" }}
{{- end }}
{{- end }}
{{- $variable := regexFind "\"env:[A-Za-z_][A-Za-z0-9_]*\"" (toJson $given) }}
{{- range $given.consumers }}{{ range .keys }}{{ with .env }}{{ $variable = printf "env: %s" . }}{{ end }}{{ end }}{{ end }}
{{- if and $variable (not (or $values.extra.env $values.extra.envFrom)) }}
{{- fail (printf "gateway: %s is an environment variable, and the chart's pods have none: use file: and a key of the Secret, file:/run/secrets/extproc/KEY, or the values extra.env and extra.envFrom" $variable) }}
{{- end }}
{{- end }}

{{- /* "yes" where other pods may reach the admin API: it has a token or OIDC then, or the settings do not load. */}}
{{- define "extproc.adminOpen" -}}
{{- $address := ((include "extproc.settings" . | fromYaml).admin | default dict).address | default "127.0.0.1" }}
{{- if not (regexMatch "^(127[.]|localhost$|::1$)" $address) }}yes{{ end }}
{{- end }}

{{- /* Ports of `pool.serve` in the settings, as a JSON array. */}}
{{- define "extproc.pickerPorts" -}}
{{- $ports := list }}
{{- range (include "extproc.settings" . | fromYaml).providers }}
{{- $pool := ternary . dict (kindIs "map" .) | dig "pool" dict | default dict }}
{{- with $pool.serve | toString | regexFind "[0-9]+$" }}{{ $ports = append $ports (int .) }}{{ end }}
{{- end }}
{{- $ports | uniq | toJson }}
{{- end }}

{{- /* "yes" where the pod uses a store in the network. */}}
{{- define "extproc.remote" -}}
{{- range (include "extproc.settings" . | fromYaml).stores }}
{{- if regexMatch "^(redis|rediss|postgresql)://" (toString .) }}yes{{ end }}
{{- end }}
{{- end }}

{{- /* "yes" where counters and ledger are in stores that several pods share. */}}
{{- define "extproc.fleet" -}}
{{- $stores := (include "extproc.settings" . | fromYaml).stores }}
{{- if and (hasPrefix "redis" ($stores.counters | default "")) (hasPrefix "postgresql" ($stores.ledger | default "")) }}yes{{ end }}
{{- end }}

{{- /* The number of workers, the same in both containers. By default it is the processor's CPU limit; without a limit
its request, because Kubernetes would give the cores of the node; without a request one, because Kubernetes would give 0. */}}
{{- define "extproc.workers" -}}
{{- $processor := .Values.resources.processor | default dict }}
{{- $from := "" }}
{{- range list "requests" "limits" }}{{ if (index $processor . | default dict).cpu }}{{ $from = . }}{{ end }}{{ end }}
- name: EXTPROC_WORKERS
  {{- if ne (toString .Values.workers) "auto" }}
  value: {{ .Values.workers | quote }}
  {{- else if $from }}
  valueFrom: {resourceFieldRef: {containerName: processor, resource: {{ $from }}.cpu}}
  {{- else }}
  value: "1"
  {{- end }}
{{- with .Values.extra.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "extproc.restricted" -}}
runAsNonRoot: true
{{- range $field := list "runAsUser" "runAsGroup" }}
{{- with index $.Values.podSecurityContext $field }}
{{ $field }}: {{ int64 . }}
{{- end }}
{{- end }}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "extproc.tlsSecret" -}}
{{ .Values.tls.secretName | default (printf "%s-tls" (include "extproc.name" .)) }}
{{- end }}
