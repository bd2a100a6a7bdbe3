#!/bin/sh
# Makes payments/ from the published .proto, with protoc (PROTOC: another command for it) and the plug-ins of go.mod.
set -eu
cd "$(dirname "$0")"
mkdir -p payments bin
go build -o bin google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
package=Mpayments.proto=example.org/payments-client/payments
${PROTOC:-protoc} -I../../docs/proto \
    --plugin=protoc-gen-go=bin/protoc-gen-go --plugin=protoc-gen-go-grpc=bin/protoc-gen-go-grpc \
    --go_out=payments --go_opt=paths=source_relative --go_opt=$package \
    --go-grpc_out=payments --go-grpc_opt=paths=source_relative --go-grpc_opt=$package \
    payments.proto
