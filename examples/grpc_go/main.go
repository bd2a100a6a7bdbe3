// A client in Go of payments for internal services, as docs/orchestration.md describes them.
//
//	./generate.sh                     makes payments/ from ../../docs/proto/payments.proto
//	KEY=tsi_... go run . localhost:9090
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"example.org/payments-client/payments"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := payments.NewPaymentsServiceClient(connection)
	requestID := fmt.Sprintf("go-%d", time.Now().UnixNano())
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", requestID, "x-api-key", os.Getenv("KEY"))

	// One variable for each message, so that a client breaks at once when a field has another number.
	health, err := client.Health(ctx, &payments.HealthRequest{})
	check(err)
	fmt.Println("health:", health.GetStatus())

	asked := &payments.CreatePaymentRequest{
		RequestId:         requestID,
		CallerService:     "checkout",
		ResourceType:      "order",
		ResourceId:        "1001",
		AmountCents:       1250,
		Currency:          "USD",
		PaymentMethod:     payments.PaymentMethod_PAYMENT_METHOD_HOSTED_CARD,
		PaymentType:       payments.PaymentType_PAYMENT_TYPE_ONE_TIME,
		Provider:          payments.ProviderType_PROVIDER_TYPE_STRIPE,
		StatusCallbackUrl: "https://checkout.example/payments/status",
		Metadata:          map[string]string{"cart": "7"},
	}
	created, err := client.CreatePayment(ctx, asked)
	check(err)
	payment := created.GetPayment()
	fmt.Println("created:", payment.GetStatus(), payment.GetAmountCents(), payment.GetCurrency())

	// The same request again is the same payment, and another one under its id is refused.
	again, err := client.CreatePayment(ctx, asked)
	check(err)
	fmt.Println("the same:", again.GetPayment().GetId() == payment.GetId())
	asked.AmountCents++
	_, err = client.CreatePayment(ctx, asked)
	fmt.Println("another:", status.Code(err), status.Code(err) == codes.AlreadyExists)

	shown, err := client.GetPayment(ctx, &payments.GetPaymentRequest{Id: payment.GetId()})
	check(err)
	fmt.Println("shown:", shown.GetPayment().GetMetadata()["cart"], shown.GetPayment().GetCheckoutUrl() != "")

	listed, err := client.ListPayments(ctx, &payments.ListPaymentsRequest{
		RequestId: requestID, HasStatus: true, Status: payments.PaymentStatus_PAYMENT_STATUS_PENDING,
	})
	check(err)
	fmt.Println("listed:", len(listed.GetPayments()))

	_, err = client.HandleProviderCallback(ctx, &payments.HandleProviderCallbackRequest{
		RequestId: requestID, Provider: "stripe", CallbackHash: payment.GetProviderCallbackHash(),
		Signature: "t=1,v1=00", Payload: "{}",
	})
	fmt.Println("unsigned event:", status.Code(err), status.Convert(err).Message())

	canceled, err := client.CancelPayment(ctx, &payments.CancelPaymentRequest{Id: payment.GetId(), Reason: "shown"})
	check(err)
	fmt.Println("canceled:", canceled.GetPayment().GetStatus())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
